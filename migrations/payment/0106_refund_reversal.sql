-- A refund can fail at the provider days after it was done: its row is FAILED then, and a REFUND_REVERSAL of the same amount
-- and reference undoes its REFUND. `failure_reason` is the provider's code for why a refund failed.
alter table ledger_transfer drop constraint ledger_transfer_kind;
alter table ledger_transfer add constraint ledger_transfer_kind
    check (kind in ('AUTHORIZATION', 'CAPTURE', 'VOID', 'REFUND', 'REFUND_REVERSAL')) not valid;
alter table refund add column failure_reason text not null default '';
