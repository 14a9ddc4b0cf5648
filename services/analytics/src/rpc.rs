use chassis::rpc::stream::ResponseStream;
use chassis::{RpcResult, accept, respond};
use contracts::souk::analytics::v1::analytics_service_server::AnalyticsService;
use contracts::souk::analytics::v1::*;
use tonic::Request;

use crate::service::Service;
use crate::{export, funnel, rebuild, sales, status, top_products};

#[tonic::async_trait]
impl AnalyticsService for Service {
    async fn get_sales_summary(&self, request: Request<GetSalesSummaryRequest>) -> RpcResult<GetSalesSummaryResponse> {
        respond(sales::summarize(self, accept(request).1).await)
    }

    type ExportSalesStream = ResponseStream<ExportSalesResponse>;

    async fn export_sales(&self, request: Request<ExportSalesRequest>) -> RpcResult<Self::ExportSalesStream> {
        let (caller, request) = accept(request);
        respond(export::export(self, &caller, request).await)
    }

    async fn list_top_products(&self, request: Request<ListTopProductsRequest>) -> RpcResult<ListTopProductsResponse> {
        respond(top_products::list(self, accept(request).1).await)
    }

    async fn get_checkout_funnel(
        &self,
        request: Request<GetCheckoutFunnelRequest>,
    ) -> RpcResult<GetCheckoutFunnelResponse> {
        respond(funnel::get(self, accept(request).1).await)
    }

    async fn get_projection_status(
        &self,
        request: Request<GetProjectionStatusRequest>,
    ) -> RpcResult<GetProjectionStatusResponse> {
        accept(request);
        respond(status::get(self).await)
    }

    async fn rebuild_projection(
        &self,
        request: Request<RebuildProjectionRequest>,
    ) -> RpcResult<RebuildProjectionResponse> {
        let (caller, RebuildProjectionRequest {}) = accept(request);
        respond(rebuild::request(self, &caller).await)
    }
}
