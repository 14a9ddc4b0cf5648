//! Fakes of the services behind the edge, with the real contracts, and the keys of access tokens.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::routing::{get, post};
use axum::{Json, Router};
use chassis::rpc::policy::Policies;
use chassis::rpc::token::KEYS_PATH;
use chassis::tls::{self, Identity};
use contracts::souk::order::v1::order_service_server::{OrderService, OrderServiceServer};
use contracts::souk::order::v1::watch_order_response::Update;
use contracts::souk::order::v1::*;
use contracts::souk::payment::v1::payment_service_server::{PaymentService, PaymentServiceServer};
use contracts::souk::payment::v1::*;
use contracts::souk::user::v1::session_service_server::{SessionService, SessionServiceServer};
use contracts::souk::user::v1::user_service_server::{UserService, UserServiceServer};
use contracts::souk::user::v1::*;
use jsonwebtoken::jwk::JwkSet;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Runs until the runtime of its test ends.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) grpc: SocketAddr,
    pub(crate) has_keys: bool,
    services: Services,
    spans: Spans,
}

/// The bytes that the trace collector received.
type Spans = Arc<Mutex<Vec<u8>>>;

/// The headers of each call, with the name of the RPC.
#[derive(Clone, Default)]
struct Services(Arc<Mutex<Vec<(&'static str, MetadataMap)>>>);

impl Upstream {
    pub(crate) fn traced(&self) -> String {
        String::from_utf8_lossy(&self.spans.lock().expect("the lock is not poisoned")).into_owned()
    }

    /// The headers of each call of an RPC, in their order.
    pub(crate) fn calls(&self, rpc: &str) -> Vec<MetadataMap> {
        let calls = self.services.0.lock().expect("the lock is not poisoned");
        calls.iter().filter(|(name, _)| *name == rpc).map(|(_, headers)| headers.clone()).collect()
    }
}

/// Without certificates.
pub(crate) fn mesh() -> Identity {
    Identity::Mesh("spiffe://cluster.local/ns/souk/sa/".parse().expect("a prefix"))
}

/// With the gateway's rate limits, if a test is about them: those of the edge alone apply otherwise.
pub(crate) async fn start(keys: Option<JwkSet>, limits: Option<gateway::Server>, identity: Identity) -> Upstream {
    let services = Services::default();
    let listener = bind().await;
    let grpc = listener.local_addr().expect("it is bound");
    let (health, health_service) = tonic_health::server::health_reporter();
    let policies = Policies::read(contracts::DESCRIPTORS).expect("every RPC has a policy");
    for path in policies.paths() {
        let service = path.split('/').nth(1).expect("a path has a service");
        health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    }
    let reflect = || {
        let builder = tonic_reflection::server::Builder::configure();
        builder.register_encoded_file_descriptor_set(contracts::DESCRIPTORS)
    };
    let spans = Spans::default();
    let has_keys = keys.is_some();
    let mut pages = collect(spans.clone());
    if let Some(keys) = keys {
        pages = pages.route(KEYS_PATH, get(async move || Json(keys.clone())));
    }
    let routes = Routes::from(pages)
        .add_service(health_service)
        .add_service(reflect().build_v1().expect("the contracts can be reflected"))
        .add_service(reflect().build_v1alpha().expect("the contracts can be reflected"))
        .add_service(UserServiceServer::new(services.clone()))
        .add_service(SessionServiceServer::new(services.clone()))
        .add_service(OrderServiceServer::new(services.clone()))
        .add_service(PaymentServiceServer::new(services.clone()));
    let routes = match limits {
        Some(limits) => routes.add_service(limits),
        None => routes,
    };
    // The same limit that roles have.
    let server = tonic::transport::Server::builder().http2_max_header_list_size(16 << 10).add_routes(routes);
    let incoming = tls::accept(TcpIncoming::from(listener), identity);
    tokio::spawn(server.serve_with_incoming(incoming));

    Upstream { grpc, has_keys, services, spans }
}

/// A role that responds UNIMPLEMENTED and records the bytes of the last request.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    last: Arc<Mutex<Option<Bytes>>>,
}

impl Recorder {
    pub(crate) async fn start(keys: JwkSet) -> Recorder {
        let last = Arc::new(Mutex::new(None));
        let record = {
            let last = last.clone();
            async move |body: Bytes| {
                *last.lock().expect("the lock is not poisoned") = Some(body);
                [("content-type", "application/grpc"), ("grpc-status", "12")]
            }
        };
        let listener = bind().await;
        let address = listener.local_addr().expect("it is bound");
        // Envoy checks the health of a service of each role.
        let (health, health_service) = tonic_health::server::health_reporter();
        for path in Policies::read(contracts::DESCRIPTORS).expect("every RPC has a policy").paths() {
            let service = path.split('/').nth(1).expect("a path has a service");
            health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
        }
        let pages =
            Router::new().route("/{service}/{rpc}", post(record)).route(KEYS_PATH, get(async move || Json(keys)));
        let routes = Routes::from(pages).add_service(health_service);
        let server = tonic::transport::Server::builder().add_routes(routes);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Recorder { address, last }
    }

    pub(crate) fn take(&self) -> Option<Bytes> {
        self.last.lock().expect("the lock is not poisoned").take()
    }
}

/// A fake trace collector.
fn collect(spans: Spans) -> Router {
    let export = async move |body: Bytes| {
        spans.lock().expect("the lock is not poisoned").extend(body);
        [("content-type", "application/grpc"), ("grpc-status", "0")]
    };
    Router::new().route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(export))
}

async fn bind() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.expect("some port is free")
}

impl Services {
    /// Records the call, and returns the number of earlier calls of this RPC.
    fn note<T>(&self, rpc: &'static str, request: &Request<T>) -> usize {
        let mut calls = self.0.lock().expect("the lock is not poisoned");
        let before = calls.iter().filter(|(name, _)| *name == rpc).count();
        calls.push((rpc, request.metadata().clone()));
        before
    }
}

#[tonic::async_trait]
impl UserService for Services {
    async fn register_user(
        &self,
        request: Request<RegisterUserRequest>,
    ) -> Result<Response<RegisterUserResponse>, Status> {
        self.note("RegisterUser", &request);
        Ok(Response::new(RegisterUserResponse::default()))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        self.note("GetUser", &request);
        let user = User { user_id: request.into_inner().user_id, ..User::default() };
        Ok(Response::new(GetUserResponse { user: Some(user) }))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> Result<Response<UpdateUserResponse>, Status> {
        self.note("UpdateUser", &request);
        Ok(Response::new(UpdateUserResponse::default()))
    }

    async fn change_password(
        &self,
        _: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        Ok(Response::new(ChangePasswordResponse::default()))
    }

    async fn list_users(&self, _: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        Ok(Response::new(ListUsersResponse::default()))
    }

    async fn disable_user(&self, _: Request<DisableUserRequest>) -> Result<Response<DisableUserResponse>, Status> {
        Ok(Response::new(DisableUserResponse::default()))
    }

    async fn enable_user(&self, _: Request<EnableUserRequest>) -> Result<Response<EnableUserResponse>, Status> {
        Ok(Response::new(EnableUserResponse::default()))
    }

    async fn request_password_reset(
        &self,
        _: Request<RequestPasswordResetRequest>,
    ) -> Result<Response<RequestPasswordResetResponse>, Status> {
        Ok(Response::new(RequestPasswordResetResponse::default()))
    }

    async fn reset_password(
        &self,
        _: Request<ResetPasswordRequest>,
    ) -> Result<Response<ResetPasswordResponse>, Status> {
        Ok(Response::new(ResetPasswordResponse::default()))
    }

    async fn verify_email(&self, _: Request<VerifyEmailRequest>) -> Result<Response<VerifyEmailResponse>, Status> {
        Ok(Response::new(VerifyEmailResponse::default()))
    }

    async fn get_mail_link(&self, _: Request<GetMailLinkRequest>) -> Result<Response<GetMailLinkResponse>, Status> {
        Ok(Response::new(GetMailLinkResponse::default()))
    }

    async fn get_contact(&self, _: Request<GetContactRequest>) -> Result<Response<GetContactResponse>, Status> {
        Ok(Response::new(GetContactResponse::default()))
    }

    async fn report_refused_email(
        &self,
        _: Request<ReportRefusedEmailRequest>,
    ) -> Result<Response<ReportRefusedEmailResponse>, Status> {
        Ok(Response::new(ReportRefusedEmailResponse::default()))
    }

    async fn erase_user(&self, _: Request<EraseUserRequest>) -> Result<Response<EraseUserResponse>, Status> {
        Ok(Response::new(EraseUserResponse::default()))
    }
}

#[tonic::async_trait]
impl SessionService for Services {
    async fn create_session(
        &self,
        _: Request<CreateSessionRequest>,
    ) -> Result<Response<CreateSessionResponse>, Status> {
        Ok(Response::new(CreateSessionResponse::default()))
    }

    async fn refresh_session(
        &self,
        _: Request<RefreshSessionRequest>,
    ) -> Result<Response<RefreshSessionResponse>, Status> {
        Ok(Response::new(RefreshSessionResponse::default()))
    }

    async fn list_sessions(&self, _: Request<ListSessionsRequest>) -> Result<Response<ListSessionsResponse>, Status> {
        Ok(Response::new(ListSessionsResponse::default()))
    }

    async fn delete_session(
        &self,
        _: Request<DeleteSessionRequest>,
    ) -> Result<Response<DeleteSessionResponse>, Status> {
        Ok(Response::new(DeleteSessionResponse::default()))
    }
}

#[tonic::async_trait]
impl OrderService for Services {
    async fn create_order(
        &self,
        request: Request<CreateOrderRequest>,
    ) -> Result<Response<CreateOrderResponse>, Status> {
        self.note("CreateOrder", &request);
        Ok(Response::new(CreateOrderResponse::default()))
    }

    /// Never responds.
    async fn get_order(&self, request: Request<GetOrderRequest>) -> Result<Response<GetOrderResponse>, Status> {
        self.note("GetOrder", &request);
        std::future::pending().await
    }

    /// Fails the first time, then responds.
    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Result<Response<ListOrdersResponse>, Status> {
        match self.note("ListOrders", &request) {
            0 => Err(Status::unavailable("not yet")),
            _ => Ok(Response::new(ListOrdersResponse::default())),
        }
    }

    /// Always fails.
    async fn cancel_order(
        &self,
        request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        self.note("CancelOrder", &request);
        Err(Status::unavailable("not yet"))
    }

    async fn list_order_events(
        &self,
        _: Request<ListOrderEventsRequest>,
    ) -> Result<Response<ListOrderEventsResponse>, Status> {
        Ok(Response::new(ListOrderEventsResponse::default()))
    }

    type WatchOrderStream = std::pin::Pin<Box<dyn Stream<Item = Result<WatchOrderResponse, Status>> + Send>>;

    /// The order at version 3 and its next change, and then silence; after that change, the end.
    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        self.note("WatchOrder", &request);
        let message = |version, update| Ok(WatchOrderResponse { version, update: Some(update) });
        let title = r#"data: {"version":"7" "#.to_owned();
        let items = vec![OrderLine { title, ..OrderLine::default() }];
        let order = |version| Some(Order { version, items: items.clone(), ..Order::default() });
        if request.into_inner().after_version == 4 {
            let end = WatchEnd { reason: WatchEndReason::OrderEnded.into() };
            let messages = [message(4, Update::KeepAlive(KeepAlive {})), message(4, Update::End(end))];
            return Ok(Response::new(Box::pin(tokio_stream::iter(messages))));
        }
        let state = message(3, Update::Order(order(3).expect("an order")));
        let change = message(4, Update::Change(OrderChange { event: None, order: order(4) }));
        Ok(Response::new(Box::pin(tokio_stream::iter([state, change]).chain(tokio_stream::pending()))))
    }

    /// Refuses, with every kind of error detail.
    async fn return_items(&self, _: Request<ReturnItemsRequest>) -> Result<Response<ReturnItemsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn search_orders(&self, _: Request<SearchOrdersRequest>) -> Result<Response<SearchOrdersResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_shipping_address(
        &self,
        _: Request<GetShippingAddressRequest>,
    ) -> Result<Response<GetShippingAddressResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update_shipping_address(
        &self,
        _: Request<UpdateShippingAddressRequest>,
    ) -> Result<Response<UpdateShippingAddressResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_pick_list(&self, _: Request<GetPickListRequest>) -> Result<Response<GetPickListResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fulfill_order(&self, _: Request<FulfillOrderRequest>) -> Result<Response<FulfillOrderResponse>, Status> {
        let mut details =
            ErrorDetails::with_error_info("PAYMENT_NOT_CAPTURED", "souk.order", [("a".to_owned(), "b".to_owned())]);
        details.add_precondition_failure_violation("PAYMENT", "order", "It is not paid.");
        details.set_retry_info(Some(std::time::Duration::from_secs(2)));
        Err(Status::with_error_details(Code::FailedPrecondition, "not paid", details))
    }

    async fn batch_get_order_states(
        &self,
        request: Request<BatchGetOrderStatesRequest>,
    ) -> Result<Response<BatchGetOrderStatesResponse>, Status> {
        self.note("BatchGetOrderStates", &request);
        Ok(Response::new(BatchGetOrderStatesResponse::default()))
    }
}

#[tonic::async_trait]
impl PaymentService for Services {
    async fn get_payment(&self, _: Request<GetPaymentRequest>) -> Result<Response<GetPaymentResponse>, Status> {
        Ok(Response::new(GetPaymentResponse::default()))
    }

    async fn list_payments(&self, _: Request<ListPaymentsRequest>) -> Result<Response<ListPaymentsResponse>, Status> {
        // Long enough to be compressed.
        Ok(Response::new(ListPaymentsResponse { next_page_token: "t".repeat(5_000), ..Default::default() }))
    }

    async fn search_payments(
        &self,
        _: Request<SearchPaymentsRequest>,
    ) -> Result<Response<SearchPaymentsResponse>, Status> {
        Ok(Response::new(SearchPaymentsResponse::default()))
    }

    /// Refuses the token, with a service's error.
    async fn get_ledger(&self, _: Request<GetLedgerRequest>) -> Result<Response<GetLedgerResponse>, Status> {
        Err(chassis::Error::TokenInvalid("its key is unknown").into_status("souk.payment"))
    }

    async fn refund_payment(
        &self,
        request: Request<RefundPaymentRequest>,
    ) -> Result<Response<RefundPaymentResponse>, Status> {
        self.note("RefundPayment", &request);
        Ok(Response::new(RefundPaymentResponse::default()))
    }

    /// Records the body among the headers.
    async fn receive_webhook(
        &self,
        mut request: Request<ReceiveWebhookRequest>,
    ) -> Result<Response<ReceiveWebhookResponse>, Status> {
        let body = request.get_mut().body.take().unwrap_or_default().data;
        request.metadata_mut().insert_bin("body-bin", MetadataValue::from_bytes(&body));
        self.note("ReceiveWebhook", &request);
        Ok(Response::new(ReceiveWebhookResponse {}))
    }
}
