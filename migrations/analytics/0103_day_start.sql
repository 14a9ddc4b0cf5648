-- When a day of a time zone begins. Where clocks go back at one o'clock in the morning, midnight comes twice: the day begins with the
-- first one, and Postgres takes such a time for the second.
create function day_start(day date, time_zone text) returns timestamptz language sql stable parallel safe
    return case
        when ((day::timestamp at time zone time_zone - interval '1 hour') at time zone time_zone)::date = day
            then day::timestamp at time zone time_zone - interval '1 hour'
        else day::timestamp at time zone time_zone
    end;
