-- Since when a comparison with the provider is due that began and was not answered yet. `check_at` says when it is tried
-- again, and so not how late it is.
alter table payment add column unanswered_since timestamptz;
