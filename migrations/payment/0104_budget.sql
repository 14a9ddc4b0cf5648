-- How often the provider may be asked, by all replicas together. One row, and this database's clock: replicas compare none of
-- theirs.
--
-- `spent_until`: calls are granted up to this time at the configured pace, and a granted call moves it on by its share of a
-- second. `compared_until`: the same for comparisons with the provider, which have a pace of their own beside it.
-- `paused_until`: the provider refused a call for its limits, and until then it is left alone. `slowdown`: how often the pace
-- was halved by that; it doubles again every two seconds after the pause.
create table provider_budget (
    one            boolean     not null default true,
    spent_until    timestamptz not null default 'epoch',
    compared_until timestamptz not null default 'epoch',
    paused_until   timestamptz not null default 'epoch',
    slowdown       integer     not null default 0,
    constraint provider_budget_one primary key (one),
    constraint provider_budget_is_one check (one),
    constraint provider_budget_slowdown check (slowdown between 0 and 10)
);
insert into provider_budget default values;

create function slowdown_now(provider_budget) returns double precision language sql volatile as
    'select greatest(0, $1.slowdown - extract(epoch from clock_timestamp() - $1.paused_until) / 2)::double precision';

-- Whether the call that the state of a payment tells of was never sent, or refused before it began. It is known then how it
-- ended, and the provider need not be asked.
alter table payment add column unsent boolean not null default false;
