-- One payment for each order. `goal` is what the order wants, set only by what happened to it; `state` is how far we are,
-- set only by what the provider said. A step drives the one to the other.
--
-- `wanted_at` is since when that goal stands: what does not reach it within a minute is behind, however often it is tried.
--
-- `due_at` is when the step may look at it next; none, when it is where it should be. Whoever takes it writes a lease: a
-- name of its own, and until when nobody else may. An expired lease on a state that ends in ING means that a call was
-- begun and nobody knows how it ended: the provider is asked.
create table payment (
    payment_id           uuid        not null,
    order_id             uuid        not null,
    user_id              uuid        not null,
    goal                 text        not null,
    state                text        not null,
    currency             text        not null,
    amount_minor         bigint      not null,
    payment_method       text        not null,
    intent_id            text,
    captured_minor       bigint      not null,
    refunded_minor       bigint      not null,
    refund_pending_minor bigint      not null,
    refund_count         integer     not null,
    failure_reason       text        not null,
    version              bigint      not null,
    cause_id             uuid        not null,
    wanted_at            timestamptz not null,
    due_at               timestamptz,
    lease                uuid,
    leased_until         timestamptz,
    attempts             integer     not null,
    created_at           timestamptz not null,
    updated_at           timestamptz not null,
    constraint payment_id primary key (payment_id),
    constraint payment_order unique (order_id),
    constraint payment_goal check (goal in ('AUTHORIZED', 'CAPTURED', 'RELEASED')),
    constraint payment_state check (state in
        ('PENDING', 'AUTHORIZING', 'AUTHORIZED', 'CAPTURING', 'CAPTURED', 'VOIDING', 'VOIDED', 'DECLINED', 'FAILED')),
    constraint payment_amount check (amount_minor between 1 and 99999999),
    constraint payment_captured check (captured_minor between 0 and amount_minor),
    constraint payment_refunds check
        (refunded_minor >= 0 and refund_pending_minor >= 0 and refunded_minor + refund_pending_minor <= captured_minor),
    constraint payment_lease check ((lease is null) = (leased_until is null)),
    constraint payment_method_form check (payment_method ~ '^pm_[A-Za-z0-9_]{1,64}$')
);
create index payment_due on payment (due_at) where due_at is not null;
create index payment_by_user on payment (user_id, payment_id desc);

-- Every state a payment was in, so that an illegal step would be seen afterwards.
create table payment_history (
    id         bigint      generated always as identity,
    payment_id uuid        not null,
    state      text        not null,
    at         timestamptz not null,
    constraint payment_history_id primary key (id)
);
create index payment_history_payment on payment_history (payment_id, id);

-- Every movement of money, from one account to another: balanced because a row is both sides of it. Rows are only ever
-- added; the service's role may not change or delete them, and nothing else can either. The same movement cannot be
-- written twice.
create table ledger_transfer (
    id             bigint      generated always as identity,
    payment_id     uuid        not null,
    kind           text        not null,
    debit_account  text        not null,
    credit_account text        not null,
    currency       text        not null,
    minor          bigint      not null,
    ref            text        not null,
    created_at     timestamptz not null,
    constraint ledger_transfer_id primary key (id),
    constraint ledger_transfer_once unique (payment_id, kind, ref),
    constraint ledger_transfer_payment foreign key (payment_id) references payment,
    constraint ledger_transfer_kind check (kind in ('AUTHORIZATION', 'CAPTURE', 'VOID', 'REFUND')),
    constraint ledger_transfer_amount check (minor > 0),
    constraint ledger_transfer_accounts check (debit_account <> credit_account)
);

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are only ever added', tg_table_name;
end
$$;
create trigger ledger_transfer_append_only before update or delete on ledger_transfer
    for each row execute function refuse_change();
