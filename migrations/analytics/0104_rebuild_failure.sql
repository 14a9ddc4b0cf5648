-- Of the live projection: why the last rebuild, which was to take its place, was given up.
alter table projection add column rebuild_failure text not null default '';

-- Since when events wait without a break, as measured every few seconds. The previous release does not write it.
alter table partition_lag add column behind_since timestamptz;
