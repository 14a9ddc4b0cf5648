-- The provider keeps what it answered under a key, an error of its own included. `call` numbers the key of the call that is
-- under way: it grows when the provider was asked and said that the call never happened.
alter table payment add column call integer not null default 1;

-- What the order wants is known up to this version of it. A payment that waits for its order asks how it stands, and the
-- answer may be ahead of events that are still on their way, or behind those that came meanwhile.
alter table payment
    add column order_version bigint not null default 0,
    add column order_asked_at timestamptz;
create index payment_waiting on payment (updated_at) where goal = 'AUTHORIZED' and state = 'AUTHORIZED';

-- When a payment at rest is compared with what the provider knows: once a day for as long as something may still happen to
-- it, and at once (the epoch) when the provider reports something. `difference` is what the last comparison found.
alter table payment
    add column check_at timestamptz,
    add column difference text not null default '',
    add constraint payment_intent unique (intent_id);
update payment set check_at = now() where updated_at > now() - interval '30 days';
create index payment_check on payment (check_at) where intent_id is not null;
create index payment_difference on payment (difference) where difference <> '';

-- Webhooks that were taken, so that a repeated one is nothing new.
create table webhook_event (
    event_id    text        not null,
    received_at timestamptz not null,
    constraint webhook_event_id primary key (event_id)
);
create index webhook_event_age on webhook_event (received_at);
