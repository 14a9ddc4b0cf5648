-- Every row there is satisfies it: the constraint before it allowed less.
alter table ledger_transfer validate constraint ledger_transfer_kind;
