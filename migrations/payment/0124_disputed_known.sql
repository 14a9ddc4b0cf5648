-- Payments of which it is known, because a refund was refused for it.
update payment set disputed = true
    where refund_refusal = 'DISPUTED' or payment_id in
      (select payment_id from refund
       where failure_reason in ('charge_disputed', 'refund_disputed_payment', 'charge_for_pending_refund_disputed'));
