-- Holds a request, after the rate limits and the token check, until `requests.lua` has validated its body, and refuses it
-- if the body is invalid.

function envoy_on_request(handle)
  handle:body()
  local found = handle:streamInfo():dynamicMetadata():get("souk.body")
  if found then
    handle:respond({[":status"] = found.status}, found.description)
    return
  end
  -- If chunks were held back there is a length, that of the JSON. The transcoded gRPC message has another one.
  handle:headers():remove("content-length")
end
