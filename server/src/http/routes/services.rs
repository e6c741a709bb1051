//! The rows of services.

use coracle_api::Code::{
    InstanceNotFound, InstanceReplaced, NoHealthyInstance, ServiceNotFound, SessionExpired, TooManyWaiters,
};
use coracle_api::{
    Deleted, HoldFrame, Instance, InstanceRenewed, Page, Picked, PrometheusGroup, Registration, Service,
    ServiceConfig, ServiceInstances, Span,
};
use coracle_recipes::service::{INSTANCES, SCALE, SPAN_MS};
use schemars::JsonSchema;

use super::super::endpoint::{Content, Endpoint, Family, delete, get, post, put};
use super::super::params::{Kind, PREFIX, Param, READ, WAIT};
use super::super::{pick, service, service_read};

const ID: Param = Param::name("id").says("The instance.").in_path();
const GENERATION: Param =
    Param::number("generation", 1).says("Only the registration of this generation; 409 if it was replaced.");
const STATUSES: &[&str] = &["starting", "passing", "warning", "critical", "draining", "maintenance"];
const ZONE: Param = Param::text("zone").says("Only those of this zone.");
const FILTERS: &[Param; 5] = &[
    Param::text("tag").says("Only those with this tag. May repeat: with all of them.").repeats(),
    Param::text("meta.owner")
        .says("Only those whose `meta` has this under `owner`; any other name likewise."),
    Param::text("version").says("Only those of this version."),
    Param::word("status", STATUSES).says("Only those of this status."),
    Param::flag("healthy").says(
        "Only those that are passing or warning and not ejected; all, if `protect` says that too few are.",
    ),
];
/// Filters of the list, where it shows instances.
const FILTERS_OF_ALL: [Param; 6] = {
    let [tag, meta, version, status, healthy] = *FILTERS;
    let only = "format=prometheus";
    [
        tag.with(only),
        meta.with(only),
        version.with(only),
        status.with(only),
        healthy.with(only),
        ZONE.with(only),
    ]
};
const MIN: Param = Param::new("min", Kind::Number(1, INSTANCES))
    .says("Wait until so many are healthy; 304 if they are not in time.")
    .example("1")
    .with("wait=0");
const PERMANENT: Param = Param::flag("permanent").says("It stays until it is deregistered.");
const NEWS: &[Param] = &[
    Param::word("status", STATUSES).says("How it does."),
    Param::new("weight", Kind::Number(0, SCALE as u64)).says("Its share of the traffic."),
    Param::new("load", Kind::Pattern(r"^([01]\.?|0?\.[0-9]{1,3}|1\.0{1,3})$"))
        .says("How busy it is, 0 to 1 with at most three decimals: what `strategy=least` looks at.")
        .example("0.25"),
];
const DEADLINE: Param = Param::duration("deadline", Span::ZERO, Span::from_millis_saturating(SPAN_MS))
    .says("When it is removed, 30 s if not given; 0 is at once.");
const RESULT: Param = Param::word("result", &["ok", "error"]).says("What the caller met.").required();
const WISH: &[Param] = &[
    Param::word("strategy", &["round_robin", "random", "weighted", "least", "sticky"])
        .says("How to choose; in turn if not given. `sticky` needs a `key`."),
    Param::text("key")
        .says("For `strategy=sticky`: the same key, the same instance.")
        .with("strategy=sticky"),
    Param::new("n", Kind::Number(1, pick::COUNT_MAX)).says("So many different ones, if there are so many."),
    Param::text("zone").says("From this zone if there are any, else from all."),
    Param::text("exclude").says("Not this instance. May repeat.").repeats(),
];

/// What `GET /v1/services` answers.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[allow(dead_code, reason = "for its schema only")]
enum Listed {
    Services(Page<Service>),
    Prometheus(Vec<PrometheusGroup>),
}

/// What `GET /v1/services/{name}` answers.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[allow(dead_code, reason = "for its schema only")]
enum One {
    Instances(ServiceInstances),
    Prometheus(Vec<PrometheusGroup>),
}

pub fn family() -> Family {
    Family {
        name: "Services",
        says: "Who can be called, where, and how well it does; and whom to call next.",
        rows: rows(),
    }
}

#[rustfmt::skip]
fn rows() -> Vec<Endpoint> {
    vec![
        get("/v1/services", service_read::list).says("List services.")
            .more("`format=prometheus` answers the instances of all of them for HTTP service discovery, and takes the filters of one service.")
            .takes(&[PREFIX]).takes(&FILTERS_OF_ALL).pages().waits().formats(&["prometheus"]).watches::<Service>().answers::<Listed>(200),
        get("/v1/services/{name}", service_read::show).says("The instances of a service.")
            .more("`format=prometheus` answers them for HTTP service discovery; of no service, that there are none.")
            .takes(FILTERS).takes(&[ZONE, MIN]).waits().formats(&["prometheus"]).watches::<Instance>()
            .answers::<One>(200).problems(&[ServiceNotFound]),
        put("/v1/services/{name}", service::configure).says("Say how a service is run.")
            .json::<ServiceConfig>().changes().answers::<Service>(200).answers::<Service>(201),
        delete("/v1/services/{name}", service::reset).says("Forget the settings of a service; its instances stay.")
            .changes().answers::<Deleted>(200).problems(&[ServiceNotFound]),
        get("/v1/services/{name}/pick", pick::pick).says("Whom to call next.")
            .more("`format=raw` is a line `host:port` an instance. The cursor of `round_robin` is the node's own.")
            .takes(WISH).takes(FILTERS).takes(READ).takes(&[WAIT]).formats(&["json", "raw"])
            .answers::<Picked>(200).answers_with(200, Content::Text("text/plain; charset=utf-8"))
            .problems(&[NoHealthyInstance, TooManyWaiters]),
        get("/v1/services/{name}/instances", service_read::instances).says("List the instances of a service in pages.")
            .pages().waits().watches::<Instance>().answers::<Page<Instance>>(200),
        post("/v1/services/{name}/instances", service::create).says("Register an instance under an id from the server.")
            .takes(&[PERMANENT]).trio().json_required::<Registration>().sample(SAMPLE).changes()
            .answers::<Instance>(201).streams::<HoldFrame>("hold=true"),
        get("/v1/services/{name}/instances/{id}", service_read::instance).says("An instance.")
            .takes(&[ID]).waits().watches::<Instance>().answers::<Instance>(200).problems(&[InstanceNotFound]),
        put("/v1/services/{name}/instances/{id}", service::register).says("Register an instance, or replace what it said of itself.")
            .more("One that is there keeps what it lives with, unless one of `session`, `ttl`, `hold=true`, `permanent` is given; a new one is permanent without.")
            .takes(&[ID, GENERATION, PERMANENT]).trio().json_required::<Registration>().sample(SAMPLE).changes()
            .answers::<Instance>(200).answers::<Instance>(201).streams::<HoldFrame>("hold=true").problems(&[InstanceNotFound, InstanceReplaced]),
        delete("/v1/services/{name}/instances/{id}", service::deregister).says("Deregister an instance.")
            .takes(&[ID, GENERATION]).changes().answers::<Deleted>(200).problems(&[InstanceNotFound, InstanceReplaced]),
        post("/v1/services/{name}/instances/{id}/renew", service::renew).says("It lives; and perhaps how it does.")
            .more("Only what is new goes through the log.")
            .takes(&[ID, GENERATION]).takes(NEWS).changes().answers::<InstanceRenewed>(200)
            .problems(&[InstanceNotFound, InstanceReplaced, SessionExpired]),
        post("/v1/services/{name}/instances/{id}/drain", service::drain).says("Pick it no more, remove it later.")
            .takes(&[ID, GENERATION, DEADLINE]).changes().answers::<Instance>(200).problems(&[InstanceNotFound, InstanceReplaced]),
        post("/v1/services/{name}/instances/{id}/report", service::report).says("Tell how a call of an instance went.")
            .more("Errors in a row eject an instance for all callers, for a while.")
            .takes(&[ID, GENERATION, RESULT]).changes().answers::<Instance>(200).problems(&[InstanceNotFound, InstanceReplaced, SessionExpired]),
    ]
}

const SAMPLE: &str = r#"{"address":"10.0.0.7","port":8080}"#;
