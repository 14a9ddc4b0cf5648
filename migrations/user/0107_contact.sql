-- How an account is notified. `phone` is where it gets text messages, if at all, in the format of E.164, which the contract checks.
-- `language_code` is the language of its texts; null: that of the shop. `email_refused_at` is when a mail server refused a mail to
-- its address for good: until its owner proves again that the address is theirs, only mails with links are sent to it.
alter table account
    add column phone text,
    add column language_code text,
    add column email_refused_at timestamptz;
