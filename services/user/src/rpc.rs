use chassis::{RpcResult, accept, respond};
use contracts::souk::user::v1::session_service_server::SessionService;
use contracts::souk::user::v1::user_service_server::UserService;
use contracts::souk::user::v1::*;
use tonic::Request;

use crate::service::Service;
use crate::{
    change_password, contact, create_session, delete_session, disable, erase, get, list, list_sessions, mail_link,
    refresh_session, register, reset_password, update, verify_email,
};

#[tonic::async_trait]
impl UserService for Service {
    async fn register_user(&self, request: Request<RegisterUserRequest>) -> RpcResult<RegisterUserResponse> {
        let (caller, request) = accept(request);
        respond(register::register(self, &caller, request).await)
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> RpcResult<GetUserResponse> {
        let (caller, request) = accept(request);
        respond(get::get(self, &caller, request).await)
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> RpcResult<UpdateUserResponse> {
        let (caller, request) = accept(request);
        respond(update::update(self, &caller, request).await)
    }

    async fn change_password(&self, request: Request<ChangePasswordRequest>) -> RpcResult<ChangePasswordResponse> {
        let (caller, request) = accept(request);
        respond(change_password::change(self, &caller, request).await)
    }

    async fn disable_user(&self, request: Request<DisableUserRequest>) -> RpcResult<DisableUserResponse> {
        let (caller, request) = accept(request);
        respond(disable::disable(self, &caller, request).await)
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> RpcResult<ListUsersResponse> {
        respond(list::list(self, accept(request).1).await)
    }

    async fn enable_user(&self, request: Request<EnableUserRequest>) -> RpcResult<EnableUserResponse> {
        let (caller, request) = accept(request);
        respond(disable::enable(self, &caller, request).await)
    }

    async fn request_password_reset(
        &self,
        request: Request<RequestPasswordResetRequest>,
    ) -> RpcResult<RequestPasswordResetResponse> {
        let (_, request) = accept(request);
        respond(reset_password::request(self, request).await)
    }

    async fn reset_password(&self, request: Request<ResetPasswordRequest>) -> RpcResult<ResetPasswordResponse> {
        let (caller, request) = accept(request);
        respond(reset_password::reset(self, &caller, request).await)
    }

    async fn verify_email(&self, request: Request<VerifyEmailRequest>) -> RpcResult<VerifyEmailResponse> {
        let (_, request) = accept(request);
        respond(verify_email::verify(self, request).await)
    }

    async fn get_mail_link(&self, request: Request<GetMailLinkRequest>) -> RpcResult<GetMailLinkResponse> {
        let (_, request) = accept(request);
        respond(mail_link::get(self, request).await)
    }

    async fn get_contact(&self, request: Request<GetContactRequest>) -> RpcResult<GetContactResponse> {
        let (_, request) = accept(request);
        respond(contact::get(self, request).await)
    }

    async fn report_refused_email(
        &self,
        request: Request<ReportRefusedEmailRequest>,
    ) -> RpcResult<ReportRefusedEmailResponse> {
        let (_, request) = accept(request);
        respond(contact::report_refused(self, request).await)
    }

    async fn erase_user(&self, request: Request<EraseUserRequest>) -> RpcResult<EraseUserResponse> {
        let (caller, request) = accept(request);
        respond(erase::erase(self, &caller, request).await)
    }
}

#[tonic::async_trait]
impl SessionService for Service {
    async fn create_session(&self, request: Request<CreateSessionRequest>) -> RpcResult<CreateSessionResponse> {
        let (caller, request) = accept(request);
        respond(create_session::create(self, &caller, request).await)
    }

    async fn refresh_session(&self, request: Request<RefreshSessionRequest>) -> RpcResult<RefreshSessionResponse> {
        let (_, request) = accept(request);
        respond(refresh_session::refresh(self, request).await)
    }

    async fn list_sessions(&self, request: Request<ListSessionsRequest>) -> RpcResult<ListSessionsResponse> {
        let (caller, request) = accept(request);
        respond(list_sessions::list(self, &caller, request).await)
    }

    async fn delete_session(&self, request: Request<DeleteSessionRequest>) -> RpcResult<DeleteSessionResponse> {
        let (caller, request) = accept(request);
        respond(delete_session::delete(self, &caller, request).await)
    }
}
