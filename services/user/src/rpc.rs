use std::sync::Arc;

use chassis::accept;
use contracts::souk::user::v1::session_service_server::SessionService;
use contracts::souk::user::v1::user_service_server::UserService;
use contracts::souk::user::v1::*;
use tonic::{Request, Response, Status};

use crate::{Service, get, register, session, update};

#[derive(Clone)]
pub(crate) struct Rpc(pub(crate) Arc<Service>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl UserService for Rpc {
    async fn register_user(&self, request: Request<RegisterUserRequest>) -> Answer<RegisterUserResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(register::register(&self.0, &caller, request).await?))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Answer<GetUserResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(get::get(&self.0, &caller, request).await?))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> Answer<UpdateUserResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(update::update(&self.0, &caller, request).await?))
    }
}

#[tonic::async_trait]
impl SessionService for Rpc {
    async fn create_session(&self, request: Request<CreateSessionRequest>) -> Answer<CreateSessionResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(session::create(&self.0, &caller, request).await?))
    }
}
