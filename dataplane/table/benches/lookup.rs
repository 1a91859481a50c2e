//! What one lookup costs, by the number of routes: `make bench-lookup` runs it. Nothing here passes or fails; a figure that misses its
//! aim is marked.
//!
//! Each shape is a table of routes, and requests for ten of them, whose rules then stay in the processor's cache, or for all of them in a
//! scattered order, so that none does: the first says what the lookup does, the second adds what memory takes. The fields of the requests
//! are one and the same, as those of a request that was just read are in the cache. A figure is the least of [`ROUNDS`] means: what
//! else runs on the machine can only add.
#![expect(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench takes the time and prints it, and ends where it cannot go on"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use route_table::{
    Conditions, HeaderMatch, HostPattern, HostTls, Hostname, MAX_CONDITIONS_OF_HOST, NonUpgrade,
    PathMatch, QueryParamMatch, RequestParts, Resources, Route, RouteHostname, RouteKey,
    RouteMatch, RouteTable, Rule, Timeouts,
};

/// How many routes there are.
const SIZES: [usize; 3] = [10, 1_000, 10_000];

/// Lookups of one mean.
const LOOKUPS: usize = 50_000;

/// Means of one figure.
const ROUNDS: usize = 7;

/// What is aimed at, among however many routes: a hundredth of what a TLS handshake costs.
const MOST: Duration = Duration::from_micros(5);

/// What is aimed at: the dearest table that is taken costs a request no more than some TLS handshakes do.
const MOST_AT_THE_LIMIT: Duration = Duration::from_millis(2);

/// Where a request goes.
struct Target {
    host: Hostname,
    path: String,
}

/// What a request has beside its target.
struct Fields {
    query: String,
    headers: HeaderMap,
}

/// A route and the target of a request that it takes.
type Pair = (Route, Target);

fn main() {
    println!(
        "nanoseconds a lookup, and times that of {} routes",
        SIZES[0]
    );
    scaling("a path each", |number| {
        pair(HOST, &format!("/rooms/r{number}"), Conditions::default())
    });
    scaling("a path and a header each", |number| {
        let path = format!("/rooms/r{number}");
        pair(HOST, &path, header("x-env", "beta"))
    });
    scaling("a path and a query parameter each", |number| {
        let path = format!("/rooms/r{number}");
        pair(HOST, &path, query("v", "2"))
    });
    scaling("a hostname each", |number| {
        let host = format!("h{number}.example.com");
        pair(&host, "/", Conditions::default())
    });
    println!(
        "\nmicroseconds a lookup with {MAX_CONDITIONS_OF_HOST} conditions at one path, none of which fits"
    );
    limit("values of one header", |number| {
        header("x-tenant", &number.to_string())
    });
    limit("a header each", |number| {
        header(&format!("x-{number}"), "1")
    });
    limit("a query parameter each", |number| {
        query(&format!("q{number}"), "1")
    });
}

const HOST: &str = "chat.example.com";

fn scaling(shape: &str, pair: impl Fn(usize) -> Pair) {
    let (mut least_few, mut least_all) = (None, None);
    print!("  {shape:<34}");
    for size in SIZES {
        let (routes, targets): (Vec<_>, Vec<_>) = (0..size).map(&pair).unzip();
        let table = table(routes);
        let few = nanoseconds(&table, &targets[..SIZES[0]], &usual(), LOOKUPS);
        let all = nanoseconds(&table, &targets, &usual(), LOOKUPS);
        let mark = if all > MOST.as_nanos() as f64 {
            " (!)"
        } else {
            ""
        };
        let times_few = few / *least_few.get_or_insert(few);
        let times_all = all / *least_all.get_or_insert(all);
        print!("  {size:>6}: {few:>4.0} x{times_few:<3.1} {all:>5.0} x{times_all:<4.1}{mark}");
    }
    println!();
}

/// The dearest table of its kind, and the dearest request: fields and parameters as many as a head has room for, none of them asked for.
fn limit(shape: &str, conditions: impl Fn(usize) -> Conditions) {
    let route = |chunk: usize| {
        let numbers = chunk * 1024..(chunk + 1) * 1024;
        let matches = numbers.map(|number| RouteMatch {
            path: PathMatch::prefix("/").unwrap(),
            conditions: conditions(number),
        });
        route(HOST, matches.collect())
    };
    let table = table((0..MAX_CONDITIONS_OF_HOST / 1024).map(route).collect());
    let mut headers = HeaderMap::new();
    for number in 0..100 {
        let name = HeaderName::try_from(format!("x-other-{number}")).unwrap();
        headers.insert(name, HeaderValue::from_static("1"));
    }
    for _ in 0..27 {
        headers.append("x-tenant", HeaderValue::from_static("none"));
    }
    let target = Target {
        host: Hostname::parse(HOST).unwrap(),
        path: "/".to_owned(),
    };
    let names = (0..4000).map(|number| format!("p{number}"));
    let fields = Fields {
        query: names.collect::<Vec<_>>().join("&"),
        headers,
    };
    let cost = nanoseconds(&table, &[target], &fields, 50) / 1000.0;
    let most = MOST_AT_THE_LIMIT.as_micros() as f64;
    let mark = if cost > most { " (!)" } else { "" };
    println!("  {shape:<36}  {cost:>8.1}{mark}");
}

fn nanoseconds(table: &RouteTable, targets: &[Target], fields: &Fields, lookups: usize) -> f64 {
    let Fields { query, headers } = fields;
    let round = || {
        let start = Instant::now();
        for number in 0..lookups {
            // A prime step goes everywhere without an order that a prefetcher knows.
            let Target { host, path } = &targets[number * 7919 % targets.len()];
            let parts = RequestParts::new(path, Some(query), headers, []);
            let host = table.host(black_box(host)).unwrap();
            black_box(host.find(&parts));
        }
        start.elapsed().as_nanos() as f64 / lookups as f64
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// What a browser sends, and what the rules here ask for.
fn usual() -> Fields {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("user-agent", "bench"),
        ("origin", "https://example.com"),
        ("x-env", "beta"),
        ("cookie", "a=b"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Fields {
        query: "v=2&user=7".to_owned(),
        headers,
    }
}

fn pair(host: &str, path: &str, conditions: Conditions) -> Pair {
    let target = Target {
        host: Hostname::parse(host).unwrap(),
        path: format!("{path}/socket"),
    };
    let path = PathMatch::prefix(path).unwrap();
    (route(host, vec![RouteMatch { path, conditions }]), target)
}

fn header(name: &str, value: &str) -> Conditions {
    Conditions {
        headers: vec![HeaderMatch::new(name, value).unwrap()],
        ..Conditions::default()
    }
}

fn query(name: &str, value: &str) -> Conditions {
    Conditions {
        query_params: vec![QueryParamMatch::new(name, value).unwrap()],
        ..Conditions::default()
    }
}

fn route(host: &str, matches: Vec<RouteMatch>) -> Route {
    Route {
        created: Some(0),
        hostnames: vec![RouteHostname {
            pattern: HostPattern::parse(host).unwrap(),
            tls: HostTls::None,
        }],
        rules: vec![Rule {
            name: "0".into(),
            matches,
            origins: route_table::OriginPolicy::default(),
            filters: Arc::default(),
            non_upgrade: NonUpgrade::Reject,
            backends: Vec::new(),
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                handshake: Duration::from_secs(10),
                read: Duration::ZERO,
                send: Duration::ZERO,
            },
        }],
        closed: false,
    }
}

fn table(routes: Vec<Route>) -> RouteTable {
    let routes = routes.into_iter().enumerate().map(|(number, route)| {
        let key = RouteKey {
            namespace: "default".into(),
            name: format!("r{number}").into(),
        };
        (key, Arc::new(route))
    });
    let resources = Resources {
        routes: routes.collect(),
        ..Resources::default()
    };
    let (table, rejected) = RouteTable::build(&resources, &RouteTable::empty());
    assert_eq!(rejected, []);
    table
}
