use chassis::{RpcResult, accept, respond};
use contracts::souk::payment::v1::payment_service_server::PaymentService;
use contracts::souk::payment::v1::*;
use tonic::Request;

use crate::service::Service;
use crate::{read, refund_payment, search, webhook};

#[tonic::async_trait]
impl PaymentService for Service {
    async fn get_payment(&self, request: Request<GetPaymentRequest>) -> RpcResult<GetPaymentResponse> {
        let (caller, request) = accept(request);
        respond(read::get(self, &caller, request).await)
    }

    async fn list_payments(&self, request: Request<ListPaymentsRequest>) -> RpcResult<ListPaymentsResponse> {
        let (caller, request) = accept(request);
        respond(read::list(self, &caller, request).await)
    }

    async fn get_ledger(&self, request: Request<GetLedgerRequest>) -> RpcResult<GetLedgerResponse> {
        respond(read::get_ledger(self, accept(request).1).await)
    }

    async fn search_payments(&self, request: Request<SearchPaymentsRequest>) -> RpcResult<SearchPaymentsResponse> {
        respond(search::search(self, accept(request).1).await)
    }

    async fn refund_payment(&self, request: Request<RefundPaymentRequest>) -> RpcResult<RefundPaymentResponse> {
        let (caller, request) = accept(request);
        respond(refund_payment::refund_payment(self, &caller, request).await)
    }

    async fn receive_webhook(&self, request: Request<ReceiveWebhookRequest>) -> RpcResult<ReceiveWebhookResponse> {
        let signature = request.metadata().get("stripe-signature").and_then(|value| value.to_str().ok());
        let signature = signature.map(str::to_owned);
        respond(webhook::receive(self, signature.as_deref(), accept(request).1).await)
    }
}
