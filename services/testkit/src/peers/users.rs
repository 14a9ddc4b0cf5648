//! The user service, for the service that notifies users.

use std::sync::{Arc, Mutex};

use chassis::RpcResult;
use chassis::rpc::client::Peer;
use contracts::souk::user::v1::user_service_client::UserServiceClient;
use contracts::souk::user::v1::user_service_server::{UserService, UserServiceServer};
use contracts::souk::user::v1::*;
use prost_types::Timestamp;
use roster::Role;
use tonic::{Code, Request, Response, Status};

/// A user service in which every user has the same contact, and every mail the same link.
#[derive(Clone)]
pub struct Users {
    caller: Role,
    contact: Arc<Mutex<GetContactResponse>>,
    /// The code of the next responses, instead of the contact.
    failure: Arc<Mutex<Option<Code>>>,
    refused: Arc<Mutex<Vec<String>>>,
}

/// That user service, and a client of it for the service `caller`, which must use its own certificate.
pub async fn serve_users(caller: Role, contact: GetContactResponse) -> (Users, UserServiceClient<Peer>) {
    let users =
        Users { caller, contact: Arc::new(Mutex::new(contact)), failure: Arc::default(), refused: Arc::default() };
    let peer = super::serve(caller, roster::USER, UserServiceServer::new(users.clone())).await;
    (users, UserServiceClient::new(peer))
}

impl Users {
    /// All calls fail with this code, until it is None.
    pub fn fail(&self, code: Option<Code>) {
        *self.failure.lock().expect("nothing panics with it") = code;
    }

    /// The users whose addresses were reported as refused.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().expect("nothing panics with it").clone()
    }

    /// As if the address were verified again.
    pub fn verify(&self) {
        self.contact.lock().expect("nothing panics with it").email_refused = false;
    }

    /// From now on, every account has this language.
    pub fn set_language(&self, code: &str) {
        self.contact.lock().expect("nothing panics with it").language_code = code.to_owned();
    }

    /// From now on, every user has this phone number.
    pub fn set_phone(&self, phone: &str) {
        self.contact.lock().expect("nothing panics with it").phone = phone.to_owned();
    }

    fn answer<T>(&self, request: &Request<T>) -> Result<GetContactResponse, Status> {
        super::assert_from(self.caller, request);
        match *self.failure.lock().expect("nothing panics with it") {
            Some(code) => Err(Status::new(code, "")),
            None => Ok(self.contact.lock().expect("nothing panics with it").clone()),
        }
    }
}

macro_rules! unimplemented_rpcs {
    ($($rpc:ident: $request:ident -> $response:ident,)*) => {
        #[tonic::async_trait]
        impl UserService for Users {
            async fn get_contact(&self, request: Request<GetContactRequest>) -> RpcResult<GetContactResponse> {
                self.answer(&request).map(Response::new)
            }

            async fn get_mail_link(&self, request: Request<GetMailLinkRequest>) -> RpcResult<GetMailLinkResponse> {
                let GetContactResponse { email, display_name, language_code, .. } = self.answer(&request)?;
                let (purpose, link) = (MailPurpose::VerifyEmail.into(), "https://shop.test/page#token=abc".to_owned());
                let expire_time = Some(Timestamp { seconds: 1_767_229_200, nanos: 0 });
                let response = GetMailLinkResponse { purpose, email, display_name, link, expire_time, language_code };
                Ok(Response::new(response))
            }

            async fn report_refused_email(
                &self,
                request: Request<ReportRefusedEmailRequest>,
            ) -> RpcResult<ReportRefusedEmailResponse> {
                self.answer(&request)?;
                self.contact.lock().expect("nothing panics with it").email_refused = true;
                self.refused.lock().expect("nothing panics with it").push(request.into_inner().user_id);
                Ok(Response::new(ReportRefusedEmailResponse {}))
            }

            $(async fn $rpc(&self, _: Request<$request>) -> RpcResult<$response> {
                Err(Status::unimplemented(""))
            })*
        }
    };
}

unimplemented_rpcs! {
    register_user: RegisterUserRequest -> RegisterUserResponse,
    get_user: GetUserRequest -> GetUserResponse,
    update_user: UpdateUserRequest -> UpdateUserResponse,
    change_password: ChangePasswordRequest -> ChangePasswordResponse,
    disable_user: DisableUserRequest -> DisableUserResponse,
    enable_user: EnableUserRequest -> EnableUserResponse,
    request_password_reset: RequestPasswordResetRequest -> RequestPasswordResetResponse,
    reset_password: ResetPasswordRequest -> ResetPasswordResponse,
    verify_email: VerifyEmailRequest -> VerifyEmailResponse,
    list_users: ListUsersRequest -> ListUsersResponse,
    erase_user: EraseUserRequest -> EraseUserResponse,
}
