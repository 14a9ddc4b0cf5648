-- Every refund: asked for by an operator, by an order that ended, or made at the provider itself. What is PENDING is reserved
-- in `payment.refund_pending_minor` by the transaction that adds it, so refunds together never exceed what was captured,
-- whoever asks for them at the same time.
--
-- `reference` is the provider's name for it, once it is known. `tried_at` is when the provider was first asked under the
-- present key, which `call` numbers: before it is asked under another, it must have said that it knows of no such refund.
create table refund (
    refund_id  uuid        not null,
    payment_id uuid        not null,
    minor      bigint      not null,
    state      text        not null,
    reference  text,
    actor      text        not null,
    reason     text        not null,
    call       integer     not null,
    tried_at   timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint refund_id primary key (refund_id),
    constraint refund_payment foreign key (payment_id) references payment,
    constraint refund_reference unique (payment_id, reference),
    constraint refund_state check (state in ('PENDING', 'DONE', 'FAILED')),
    constraint refund_amount check (minor > 0)
);
create index refund_pending on refund (payment_id, updated_at) where state = 'PENDING';

-- What was under way before refunds had rows. The provider is asked under new names, and refuses what it gave back already.
insert into refund (refund_id, payment_id, minor, state, actor, reason, call, created_at, updated_at)
    select gen_random_uuid(), payment_id, refund_pending_minor, 'PENDING', 'service:payment', 'ORDER_ENDED', 1, now(), now()
    from payment where refund_pending_minor > 0;
alter table payment drop column refund_count;
