use chassis::Context;
use chassis::boot::Prefixed;
use chassis::redis;
use clap::{Args, Command, FromArgMatches};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Code as Status;
use tonic::transport::Channel;
use uuid::Uuid;

use super::wire::rate_limit_descriptor::Entry;
use super::wire::rate_limit_service_client::RateLimitServiceClient;
use super::*;

fn settings<S: Args + FromArgMatches>(arguments: &[&str]) -> S {
    let command = S::augment_args(Command::new("test").no_binary_name(true));
    S::from_arg_matches(&command.get_matches_from(arguments)).expect("good settings")
}

/// A connected client of the test server, which has time enough on any machine.
async fn redis() -> Redis {
    let server = std::env::var("SOUK_TEST_REDIS").expect("SOUK_TEST_REDIS is the URL of a Redis, as in `make test`");
    let url = format!("--souk-redis-url={server}");
    let config: Prefixed<redis::Config> = settings(&[&url, "--souk-redis-timeout=30s"]);
    let redis = Redis::new(&config).expect("a good URL");
    tokio::spawn(redis.clone().run(CancellationToken::new()));
    redis.connected().await.expect("it connects");
    redis
}

async fn gateway(kit: &mut testkit::Kit, limits: &[&str]) -> RateLimitServiceClient<Channel> {
    let redis = redis().await;
    serve_with(kit, redis, limits).await
}

async fn serve_with(kit: &mut testkit::Kit, redis: Redis, limits: &[&str]) -> RateLimitServiceClient<Channel> {
    let limits: Prefixed<Limits> = settings(limits);
    let context: &Context = &kit.context;
    let role = serve(Role::new(roster::GATEWAY, context), redis, &limits);
    // The other end of the pipe is the edge.
    RateLimitServiceClient::new(kit.serve(role).await)
}

fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entries = entries.iter().map(|(key, value)| Entry { key: (*key).to_owned(), value: (*value).to_owned() });
    RateLimitDescriptor { entries: entries.collect() }
}

fn request(descriptors: &[&[(&str, &str)]]) -> RateLimitRequest {
    let descriptors = descriptors.iter().map(|entries| descriptor(entries)).collect();
    RateLimitRequest { domain: "souk".to_owned(), descriptors, hits_addend: 0 }
}

fn login(client: &str) -> RateLimitRequest {
    request(&[&[("class", "account"), ("masked_remote_address", client)]])
}

fn write(role: &str, user: &str) -> RateLimitRequest {
    request(&[&[("class", "write"), ("role", role), ("user", user)]])
}

/// Keys of other tests, and of earlier runs, are in the same Redis.
fn unique() -> String {
    Uuid::now_v7().to_string()
}

struct Asker {
    client: RateLimitServiceClient<Channel>,
}

impl Asker {
    async fn ask(&self, request: RateLimitRequest) -> RateLimitResponse {
        let response = self.client.clone().should_rate_limit(request).await;
        response.expect("Redis is there").into_inner()
    }

    async fn admits(&self, request: RateLimitRequest) -> bool {
        self.ask(request).await.overall_code() == Code::Ok
    }
}

fn find_header(response: &RateLimitResponse, name: &str) -> Option<String> {
    response.response_headers_to_add.iter().find(|header| header.key == name).map(|header| header.value.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_exactly_as_many_as_the_limit_are_admitted() {
    let mut kit = testkit::Kit::new();
    let client = gateway(&mut kit, &["--souk-limit-account-count=100"]).await;
    let address = unique();
    let mut asked = JoinSet::new();
    for _ in 0..300 {
        let (mut client, request) = (client.clone(), login(&address));
        asked.spawn(async move { client.should_rate_limit(request).await.expect("it counts").into_inner() });
    }
    let responses = asked.join_all().await;
    let refused: Vec<_> = responses.iter().filter(|response| response.overall_code() == Code::OverLimit).collect();
    assert_eq!(refused.len(), 200);
    for refused in refused {
        assert_eq!(find_header(refused, "x-ratelimit-limit").as_deref(), Some("100, 100;w=900"));
        assert_eq!(find_header(refused, "x-ratelimit-remaining").as_deref(), Some("0"));
        let after = find_header(refused, "retry-after").expect("it says when");
        assert!((1..=900).contains(&after.parse::<u32>().expect("seconds")), "{after}");
    }
    let admitted = responses.iter().filter(|response| response.overall_code() == Code::Ok);
    let mut left: Vec<u32> = admitted
        .map(|response| find_header(response, "x-ratelimit-remaining").expect("a header").parse().expect("a number"))
        .collect();
    left.sort_unstable();
    assert_eq!(left, (0..100).collect::<Vec<_>>(), "each knows how many are left");
}

#[tokio::test]
async fn the_window_slides() {
    let mut kit = testkit::Kit::new();
    let client = gateway(&mut kit, &["--souk-limit-account-count=2", "--souk-limit-account-window=1s"]).await;
    let (asker, address) = (Asker { client }, unique());
    let mut admitted = Vec::new();
    let begun = std::time::Instant::now();
    while admitted.len() < 6 {
        // Before and after, as Redis decides somewhere in between.
        let before = begun.elapsed();
        if asker.admits(login(&address)).await {
            admitted.push((before, begun.elapsed()));
        }
    }
    for three in admitted.windows(3) {
        let at_most = three[2].1 - three[0].0;
        assert!(at_most >= Duration::from_secs(1), "three within {at_most:?}: {admitted:?}");
    }
}

#[tokio::test]
async fn a_refused_request_counts_nowhere() {
    let mut kit = testkit::Kit::new();
    let client = gateway(&mut kit, &["--souk-limit-account-count=1", "--souk-limit-network-factor=2"]).await;
    let asker = Asker { client };
    let (network, first, second, third) = (unique(), unique(), unique(), unique());
    let login = |client: &str| {
        request(&[
            &[("class", "account"), ("masked_remote_address", client)],
            &[("class", "account"), ("scope", "network"), ("masked_remote_address", &network)],
        ])
    };
    assert!(asker.admits(login(&first)).await);
    for _ in 0..5 {
        assert!(!asker.admits(login(&first)).await, "its own limit");
    }
    assert!(asker.admits(login(&second)).await, "those did not count against the network");
    assert!(!asker.admits(login(&third)).await, "the limit of the network, however many addresses it has");
}

#[tokio::test]
async fn writes_are_counted_by_user_and_operators_have_limits_of_their_own() {
    let mut kit = testkit::Kit::new();
    // A bucket that gets no token while the test runs.
    let limits = ["customer-write-rate=1", "customer-write-burst=3", "operator-write-rate=1", "operator-write-burst=7"];
    let limits = limits.map(|limit| format!("--souk-limit-{limit}"));
    let client = gateway(&mut kit, &limits.each_ref().map(String::as_str)).await;
    let asker = Asker { client };
    for (role, burst) in [("customer", 3_u32), ("operator", 7)] {
        let (begun, user, mut admitted) = (std::time::Instant::now(), unique(), 0);
        let mut last = None;
        for _ in 0..20 {
            let response = asker.ask(write(role, &user)).await;
            admitted += u32::from(response.overall_code() == Code::Ok);
            last = Some(response);
        }
        let seconds = u32::try_from(begun.elapsed().as_secs()).expect("it is soon") + 1;
        assert!((burst..=burst + seconds).contains(&admitted), "{role}: {admitted} in {seconds} s");
        let last = last.expect("twenty were asked");
        let limit = find_header(&last, "x-ratelimit-limit");
        assert_eq!(limit, Some(format!("{burst}, 1;w=1;burst={burst}")));
    }
}

#[test]
fn the_addresses_of_a_network_are_one_client() {
    for (address, client) in [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
    ] {
        assert_eq!(client_of(address), client);
    }
}

#[tokio::test]
async fn connections_are_counted_by_client() {
    let mut kit = testkit::Kit::new();
    let client = gateway(&mut kit, &["--souk-limit-connection-rate=1", "--souk-limit-connection-burst=5"]).await;
    let (asker, begun, address, mut admitted) = (Asker { client }, std::time::Instant::now(), unique(), 0);
    for _ in 0..20 {
        let connection = request(&[&[("class", "connection"), ("remote_address", &address)]]);
        admitted += u64::from(asker.admits(connection).await);
    }
    assert!((5..=6 + begun.elapsed().as_secs()).contains(&admitted), "{admitted}");
}

#[tokio::test]
async fn a_count_that_redis_lost_begins_again() {
    let mut kit = testkit::Kit::new();
    let redis = redis().await;
    let client = serve_with(&mut kit, redis.clone(), &["--souk-limit-account-count=1"]).await;
    let (asker, address) = (Asker { client }, unique());
    assert!(asker.admits(login(&address)).await);
    assert!(!asker.admits(login(&address)).await);
    let key = format!("souk:limit:account:{address}");
    let forget = redis::Script::new("return {redis.call('DEL', KEYS[1])}");
    assert_eq!(redis.run_script(&forget, vec![key], vec![]).await.expect("it is forgotten"), [1]);
    // The gateway remembers a refusal for a second.
    while !asker.admits(login(&address)).await {}
    assert!(!asker.admits(login(&address)).await);
}

#[tokio::test]
async fn only_the_edge_may_ask_and_only_what_has_a_limit() {
    let mut kit = testkit::Kit::new();
    let mut client = gateway(&mut kit, &[]).await;
    let address = unique();
    for caller in ["user", "order", "dev"] {
        let mut other = RateLimitServiceClient::new(kit.connect(caller).await);
        let response = other.should_rate_limit(login(&address)).await;
        assert_eq!(response.expect_err(caller).code(), Status::PermissionDenied);
    }
    let mut twice = login(&address);
    twice.hits_addend = 2;
    let many = request(&[&[("class", "account"), ("masked_remote_address", "a")] as &[_]; 5]);
    for odd in [request(&[&[("class", "read")]]), request(&[&[]]), twice, many] {
        let response = client.should_rate_limit(odd).await;
        assert_eq!(response.expect_err("odd").code(), Status::InvalidArgument);
    }
}

#[tokio::test]
async fn without_redis_the_response_is_an_error_which_a_metric_counts() {
    let mut kit = testkit::Kit::new();
    // No server listens there.
    let config: Prefixed<redis::Config> = settings(&["--souk-redis-url=redis://127.0.0.1:1"]);
    let redis = Redis::new(&config).expect("a good URL");
    let mut client = serve_with(&mut kit, redis, &[]).await;
    let response = client.should_rate_limit(login("a")).await;
    assert_eq!(response.expect_err("it cannot count").code(), Status::Unavailable);
    assert!(metrics::render().contains("souk_rate_limit_total{outcome=\"not counted\"} 1"));
}
