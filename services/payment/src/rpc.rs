use std::sync::Arc;

use chassis::accept;
use contracts::souk::payment::v1::payment_service_server::PaymentService;
use contracts::souk::payment::v1::*;
use tonic::{Request, Response, Status};

use crate::service::Service;
use crate::{read, refund_payment, webhook};

pub(crate) struct Rpc(pub(crate) Arc<Service>);

type RpcResult<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl PaymentService for Rpc {
    async fn get_payment(&self, request: Request<GetPaymentRequest>) -> RpcResult<GetPaymentResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(read::get(&self.0, &caller, request).await?))
    }

    async fn list_payments(&self, request: Request<ListPaymentsRequest>) -> RpcResult<ListPaymentsResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(read::list(&self.0, &caller, request).await?))
    }

    async fn get_ledger(&self, request: Request<GetLedgerRequest>) -> RpcResult<GetLedgerResponse> {
        Ok(Response::new(read::get_ledger(&self.0, accept(request).1).await?))
    }

    async fn refund_payment(&self, request: Request<RefundPaymentRequest>) -> RpcResult<RefundPaymentResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(refund_payment::refund_payment(&self.0, &caller, request).await?))
    }

    async fn receive_webhook(&self, request: Request<ReceiveWebhookRequest>) -> RpcResult<ReceiveWebhookResponse> {
        let signature = request.metadata().get("stripe-signature").and_then(|value| value.to_str().ok());
        let signature = signature.map(str::to_owned);
        Ok(Response::new(webhook::receive(&self.0, signature.as_deref(), accept(request).1).await?))
    }
}
