//! The policy of every RPC of the contracts, as callers meet it: over REST, over gRPC, and at the role itself. The RPCs are those
//! of the descriptor set, so that a new one is tried without a line here, and fails until it has a sample.

mod call;
mod samples;
mod tokens;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chassis::rpc::policy::{self, Access, Policy};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use roster::{ROLES, Role};
use serde_json::{Value, json};
use stack::client::{Client, random_password};
use stack::controlled::Stack;
use stack::pki::{Authority, Validity, parties};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use trials::roles::endpoint;
use uuid::Uuid;

use crate::{Market, shared, wait};
use call::{Outcome, grpc, rest};
use samples::{Data, Ids, sample};
use tokens::{Keys, Refused, subject};

/// The ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Rest,
    Grpc,
    /// At the port of the role, with a certificate that it knows.
    Role,
}

const WAYS: [Way; 3] = [Way::Rest, Way::Grpc, Way::Role];

/// One RPC, at one of the roles that serve it.
struct Rpc {
    method: MethodDescriptor,
    policy: Policy,
    role: Role,
}

impl Rpc {
    /// Whether it is reached through the edge.
    fn is_public(&self) -> bool {
        self.policy.rate_class != policy::RateClass::Internal
    }
}

/// Everything that the calls need.
struct World {
    pool: DescriptorPool,
    edge: Client,
    grpc: Channel,
    roles: Vec<(Role, Channel)>,
    taken_sku: String,
}

impl World {
    async fn call(&self, rpc: &Rpc, way: Way, token: &str, request: &Value) -> Result<Outcome> {
        let outcome = match way {
            Way::Rest => {
                let client = match token {
                    "" => self.edge.clone(),
                    token => self.edge.with_session(&json!({"accessToken": token}))?,
                };
                rest(&client, &self.pool, &rpc.method, request).await
            }
            Way::Grpc => grpc(&self.grpc, token, &rpc.method, request).await,
            Way::Role => {
                let (_, channel) = self.roles.iter().find(|(role, _)| *role == rpc.role).context("all are here")?;
                grpc(channel, token, &rpc.method, request).await
            }
        };
        outcome.with_context(|| format!("{} at {}: {way:?}", rpc.method.full_name(), rpc.role.name))
    }

    /// A request of this RPC that names these ids.
    fn sample(&self, rpc: &Rpc, ids: &Ids) -> Result<(Value, Data)> {
        let name = rpc.method.full_name();
        sample(name, ids, &self.taken_sku).with_context(|| format!("{name} has no sample in policy/samples.rs"))
    }
}

/// Every RPC, at each role that serves it.
fn rpcs(pool: &DescriptorPool) -> Result<Vec<Rpc>> {
    let mut rpcs = Vec::new();
    for service in pool.services().filter(|service| service.full_name().starts_with("souk.")) {
        for method in service.methods() {
            let policy = policy::read(pool, &method)?;
            let roles: Vec<Role> = match policy.domain.as_str() {
                // Of roles that publish or consume events.
                "souk.ops" => roster::services().filter(|role| *role != roster::PRODUCT).collect(),
                domain => ROLES.into_iter().filter(|role| role.domain == domain).collect(),
            };
            ensure!(!roles.is_empty(), "no role serves {}", method.full_name());
            rpcs.extend(roles.into_iter().map(|role| Rpc { method: method.clone(), policy: policy.clone(), role }));
        }
    }
    Ok(rpcs)
}

/// A customer with a session, an order and a payment.
struct Owner {
    ids: Ids,
    token: String,
}

impl Owner {
    async fn new(stack: &Stack, operator: &Client, product_id: &str) -> Result<Self> {
        let (email, password) = (format!("{}@example.com", Uuid::now_v7().simple()), random_password());
        let anonymous = Client::new(stack.ports().edge());
        let account = json!({"email": email, "password": password, "displayName": "A customer"});
        anonymous.post("/v1/users", account).await?.ok()?;
        let customer = anonymous.sign_in(&email, &password).await?;
        let items = json!([{"productId": product_id, "quantity": 1}]);
        let address = json!({"recipient": "Ada", "lines": ["12 Road"], "city": "London", "country": "GB"});
        let order = json!({"items": items, "paymentMethod": "pm_card_visa", "shippingAddress": address});
        let placed = customer.post("/v1/orders", order).await?.ok()?;
        let order = placed["order"]["orderId"].as_str().context("an order has an id")?.to_owned();
        let paid = |order: &Value| order["payment"]["captured"] == true;
        let paid = customer.wait_for(&order, Duration::from_secs(180), "paid", paid).await?;
        let payment = paid["payment"]["paymentId"].as_str().context("a payment has an id")?.to_owned();
        wait("the reservation", async || Ok(operator.get(&format!("/v1/reservations/{order}")).await?.status == 200))
            .await?;
        let token = customer.token().await?;
        let (user, session) = subject(&token)?;
        Ok(Self { ids: Ids { user, session, order, payment, password }, token })
    }
}

/// The token of a session that has ended, once every role refuses it.
async fn revoked(world: &World, client: &Client, rpcs: &[Rpc]) -> Result<String> {
    let token = client.token().await?;
    client.send(reqwest::Method::DELETE, "/v1/sessions/current", "", None).await?.ok()?;
    for role in ROLES {
        let guarded = |rpc: &&Rpc| rpc.role == role && matches!(rpc.policy.access, Access::Customer | Access::Operator);
        let Some(rpc) = rpcs.iter().find(guarded) else { continue };
        let (request, _) = world.sample(rpc, &Ids::of_nothing())?;
        wait("a role to refuse the session", async || {
            Ok(world.call(rpc, Way::Role, &token, &request).await?.reason == "TOKEN_REVOKED")
        })
        .await?;
    }
    Ok(token)
}

fn expect(outcome: &Outcome, code: Code, reason: &str, what: &str) -> Result<()> {
    let seen = (outcome.code, outcome.reason.as_str());
    ensure!(seen == (code, reason), "{what}: {code:?} {reason} is expected, not {outcome:?}");
    Ok(())
}

/// The caller was let in, and is answered what the sample says.
fn expect_answer(outcome: &Outcome, reason: &str, what: &str) -> Result<()> {
    let is_success = outcome.code == Code::Ok;
    ensure!(outcome.reason == reason && is_success == reason.is_empty(), "{what}: `{reason}`, not {outcome:?}");
    Ok(())
}

async fn world(stack: &Stack) -> Result<(World, Client, String)> {
    let market = Market::open(stack, 100).await?;
    let ports = stack.ports();
    let mut roles = Vec::new();
    for role in ROLES {
        roles.push((role, endpoint(&stack.layout.pki, "dev", ports.grpc(role))?.connect().await?));
    }
    let world = World {
        pool: DescriptorPool::decode(contracts::DESCRIPTORS)?,
        edge: Client::new(ports.edge()),
        grpc: Endpoint::from_shared(format!("http://127.0.0.1:{}", ports.edge()))?.connect().await?,
        roles,
        taken_sku: market.sku,
    };
    Ok((world, market.operator, market.product_id))
}

#[test]
fn every_rpc_refuses_whom_its_policy_does_not_name() -> Result<()> {
    shared(async |stack| {
        let (world, operator, _) = world(stack).await?;
        let rpcs = rpcs(&world.pool)?;
        let keys = Keys::read(stack).await?;
        let customer = stack.customer().await?;
        let all_of = async |good: &Client, ended: Client| -> Result<Vec<Refused>> {
            let token = revoked(&world, &ended, &rpcs).await?;
            let revoked = Refused { what: "revoked", token, edge: "TOKEN_REVOKED", role: "TOKEN_REVOKED" };
            let none = Refused { what: "none", token: String::new(), edge: "TOKEN_MISSING", role: "TOKEN_MISSING" };
            Ok([keys.forge(&good.token().await?)?, vec![revoked, none]].concat())
        };
        let of_both = async || -> Result<_> {
            let of_customers = all_of(&customer, stack.customer().await?).await?;
            Ok((of_customers, all_of(&operator, stack.operator().await?).await?))
        };
        let (mut since, mut forged) = (Instant::now(), of_both().await?);
        for rpc in &rpcs {
            if since.elapsed() > Duration::from_secs(60) {
                // They expire as the good ones do that they are made from.
                (since, forged) = (Instant::now(), of_both().await?);
            }
            let refused = if rpc.policy.access == Access::Customer { &forged.0 } else { &forged.1 };
            for way in WAYS {
                for refused in refused {
                    let (request, data) = world.sample(rpc, &Ids::of_nothing())?;
                    let outcome = world.call(rpc, way, &refused.token, &request).await?;
                    let what = format!("{} at {}, {way:?}, {}", rpc.method.full_name(), rpc.role.name, refused.what);
                    match (rpc.policy.access, way) {
                        (_, Way::Rest) if !rpc.is_public() => {
                            expect(&outcome, Code::NotFound, "METHOD_NOT_FOUND", &what)?;
                        }
                        (_, Way::Grpc) if !rpc.is_public() => {
                            expect(&outcome, Code::Unimplemented, "METHOD_NOT_FOUND", &what)?;
                        }
                        (Access::Service, _) => expect(&outcome, Code::PermissionDenied, "PERMISSION_DENIED", &what)?,
                        // A token that it does not need is not looked at.
                        (Access::Public, _) => expect_answer(&outcome, data.reason(), &what)?,
                        (_, Way::Role) => expect(&outcome, Code::Unauthenticated, refused.role, &what)?,
                        _ => expect(&outcome, Code::Unauthenticated, refused.edge, &what)?,
                    }
                }
            }
        }
        Ok(())
    })
}

#[test]
fn every_rpc_of_operators_refuses_customers_and_lets_operators_in() -> Result<()> {
    shared(async |stack| {
        let (world, operator, _) = world(stack).await?;
        let customer = stack.customer().await?;
        let rpcs = rpcs(&world.pool)?;
        for rpc in rpcs.iter().filter(|rpc| matches!(rpc.policy.access, Access::Operator | Access::Customer)) {
            for way in WAYS.into_iter().filter(|way| rpc.is_public() || *way == Way::Role) {
                let what = format!("{} at {}, {way:?}", rpc.method.full_name(), rpc.role.name);
                let (request, data) = world.sample(rpc, &Ids::of_nothing())?;
                if rpc.policy.access == Access::Operator {
                    let outcome = world.call(rpc, way, &customer.token().await?, &request).await?;
                    expect(&outcome, Code::PermissionDenied, "PERMISSION_DENIED", &what)?;
                }
                expect_answer(&world.call(rpc, way, &operator.token().await?, &request).await?, data.reason(), &what)?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_customer_sees_and_changes_nothing_of_another() -> Result<()> {
    shared(async |stack| {
        let (world, operator, product_id) = world(stack).await?;
        let stranger = stack.customer().await?;
        let rpcs = rpcs(&world.pool)?;
        for rpc in rpcs.iter().filter(|rpc| rpc.policy.access == Access::Customer) {
            // One for each, as some of the RPCs end what they name.
            let owner = Owner::new(stack, &operator, &product_id).await?;
            for way in WAYS {
                let what = format!("{}, {way:?}", rpc.method.full_name());
                let (request, data) = world.sample(rpc, &owner.ids)?;
                let theirs = world.call(rpc, way, &stranger.token().await?, &request).await?;
                expect_answer(&theirs, data.reason(), &what)?;
                let named = |text: &str| owner.ids.all().into_iter().any(|id| text.contains(id));
                ensure!(!named(&theirs.text), "{what}: {theirs:?}");
                // What is somebody else's looks like what does not exist.
                let (request, _) = world.sample(rpc, &Ids::of_nothing())?;
                let nothing = world.call(rpc, way, &stranger.token().await?, &request).await?;
                ensure!(nothing.text == theirs.text, "{what}: {theirs:?} is not {nothing:?}");
            }
            // They are refused for that reason only: the same request of the owner succeeds.
            let (request, data) = world.sample(rpc, &owner.ids)?;
            let what = format!("{} of the owner", rpc.method.full_name());
            // A list is read in every way, to see that the ids would have been found.
            let ways = if matches!(data, Data::Own) { &WAYS[..] } else { &[Way::Rest] };
            for way in ways {
                let own = world.call(rpc, *way, &owner.token, &request).await?;
                expect_answer(&own, if let Data::Shop(reason) = data { reason } else { "" }, &what)?;
                let has_ids = owner.ids.all().into_iter().any(|id| own.text.contains(id));
                ensure!(has_ids || !matches!(data, Data::Own), "{what}, {way:?}: {own:?}");
            }
        }
        Ok(())
    })
}

/// The certificates of all parties and of all callers that a policy names, some of which have no role yet.
fn certificates(stack: &Stack, rpcs: &[Rpc]) -> Result<(PathBuf, Vec<String>)> {
    let folder = std::env::temp_dir().join(format!("souk-callers-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder)?;
    for file in ["ca.crt", "ca.key"] {
        std::fs::copy(stack.layout.pki.join(file), folder.join(file))?;
    }
    let named = rpcs.iter().flat_map(|rpc| rpc.policy.callers.clone());
    let mut all: Vec<String> = parties().map(str::to_owned).chain(named).collect();
    all.sort();
    all.dedup();
    let authority = Authority::open(&folder)?;
    all.iter().try_for_each(|party| authority.issue(party, Validity::of(time::Duration::days(1))))?;
    Ok((folder, all))
}

#[test]
fn an_rpc_between_services_is_for_its_callers_only() -> Result<()> {
    shared(async |stack| {
        let (world, operator, _) = world(stack).await?;
        let rpcs = rpcs(&world.pool)?;
        let (folder, parties) = certificates(stack, &rpcs)?;
        let mut let_in = 0;
        for rpc in rpcs.iter().filter(|rpc| rpc.policy.access == Access::Service) {
            for party in &parties {
                let channel = endpoint(&folder, party, stack.ports().grpc(rpc.role))?.connect().await?;
                let (request, data) = world.sample(rpc, &Ids::of_nothing())?;
                let what = format!("{} for {party}", rpc.method.full_name());
                // A token opens nothing here.
                for token in ["", &operator.token().await?] {
                    let outcome = grpc(&channel, token, &rpc.method, &request).await?;
                    if rpc.policy.callers.contains(party) {
                        expect_answer(&outcome, data.reason(), &what)?;
                        let_in += 1;
                    } else {
                        expect(&outcome, Code::PermissionDenied, "PERMISSION_DENIED", &what)?;
                    }
                }
            }
        }
        ensure!(let_in >= 6, "{let_in} calls were let in");
        Ok(std::fs::remove_dir_all(folder)?)
    })
}

#[test]
fn every_rpc_has_a_sample() -> Result<()> {
    let pool = DescriptorPool::decode(contracts::DESCRIPTORS)?;
    for rpc in rpcs(&pool)? {
        let name = rpc.method.full_name();
        let (request, _) = sample(name, &Ids::of_nothing(), &random_password()).with_context(|| name.to_owned())?;
        ensure!(request.is_object(), "{name}: {request}");
    }
    Ok(())
}
