-- Gives each server-sent event its id, as the transcoder writes only the data: the version with which a message begins. A client
-- that has lost its connection sends the last id in the header Last-Event-ID, and the stream goes on behind it.
--
-- The transcoder writes whole messages. Within a text of JSON, quotes are escaped, so the pattern is the beginning of a message.

function envoy_on_response(handle)
  if handle:headers():get("content-type") ~= "text/event-stream" then
    return
  end
  for chunk in handle:bodyChunks() do
    local text = chunk:getBytes(0, chunk:length())
    local with_ids, count = string.gsub(text, 'data: {"version":"(%d+)"', 'id: %1\n%0')
    if count > 0 then
      chunk:setBytes(with_ids)
    end
  end
end
