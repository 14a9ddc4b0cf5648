use chassis::{RpcResult, accept, respond};
use contracts::souk::notification::v1::notification_service_server::NotificationService;
use contracts::souk::notification::v1::*;
use tonic::Request;

use crate::service::Service;
use crate::{list, preferences, resend};

#[tonic::async_trait]
impl NotificationService for Service {
    async fn list_notifications(
        &self,
        request: Request<ListNotificationsRequest>,
    ) -> RpcResult<ListNotificationsResponse> {
        let (caller, request) = accept(request);
        respond(list::list(self, &caller, request).await)
    }

    async fn get_preferences(&self, request: Request<GetPreferencesRequest>) -> RpcResult<GetPreferencesResponse> {
        let (caller, request) = accept(request);
        respond(preferences::get(self, &caller, request).await)
    }

    async fn update_preferences(
        &self,
        request: Request<UpdatePreferencesRequest>,
    ) -> RpcResult<UpdatePreferencesResponse> {
        let (caller, request) = accept(request);
        respond(preferences::update(self, &caller, request).await)
    }

    async fn resend_notification(
        &self,
        request: Request<ResendNotificationRequest>,
    ) -> RpcResult<ResendNotificationResponse> {
        let (caller, request) = accept(request);
        respond(resend::resend(self, &caller, request).await)
    }
}
