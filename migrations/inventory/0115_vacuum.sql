-- What ended stays in the index of what is due until the table is vacuumed, and each look for the next one walks over it. By default
-- a table is vacuumed when a fifth of it has changed, which is seldom when it is large, and its indexes are left alone if few pages
-- of it have dead rows.
alter table reservation set (autovacuum_vacuum_scale_factor = 0.03, vacuum_index_cleanup = on);
