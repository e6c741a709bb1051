//! ⑦ Whom to call next: `GET /v1/services/{s}/pick`.

use coracle_api::{self as api, Code, Problem};
use coracle_recipes as recipes;
use coracle_recipes::service::{self, Picked, Strategy, Wish};
use coracle_store::Revision;
use http::{HeaderValue, StatusCode, header};

use super::call::Call;
use super::message::Response;
use super::objects::NAME;
use super::problem::{Answer, bad_query};
use super::read::Format;
use super::respond;
use super::service_form::{filter, shown};
use super::service_read::count_healthy;

/// Instances of one pick.
pub const COUNT_MAX: u64 = 100;

const STRATEGIES: [(&str, Strategy); 5] = [
    ("round_robin", Strategy::RoundRobin),
    ("random", Strategy::Random),
    ("weighted", Strategy::Weighted),
    ("least", Strategy::Least),
    ("sticky", Strategy::Sticky),
];

/// `GET /v1/services/{s}/pick`
pub async fn pick(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let wish = wish(&mut call)?;
    let filter = filter(&mut call, false)?;
    let wait = call.wait()?;
    let raw = call.format(&[("json", Format::Json), ("raw", Format::Raw)])? == Some(Format::Raw);
    let reading = call.reading()?;
    call.query.done()?;
    call.settle(reading).await?;
    let (mut picked, mut revision) = call.edge.pools.pick(&call.edge.node, &name, &filter, &wish);
    if picked.candidates.is_empty()
        && let Some(wait) = wait
    {
        let Some(selection) = recipes::selection(service::NAME, &name) else {
            return Err(Problem::new(Code::Internal, "the recipe is not in the list").into());
        };
        let found =
            |store: &coracle_store::Store| (count_healthy(store.view(), &name, &filter) > 0).then_some(());
        Box::pin(call.until(selection, wait, found)).await?;
        (picked, revision) = call.edge.pools.pick(&call.edge.node, &name, &filter, &wish);
    }
    if picked.candidates.is_empty() {
        let detail = format!("nobody to call service={name}");
        let problem = Problem::new(Code::NoHealthyInstance, detail).with("service", name);
        return Err(problem.at_revision(revision.0).into());
    }
    Ok(answer(&picked, revision, raw))
}

fn wish(call: &mut Call) -> Answer<Wish> {
    let strategy = call.query.word("strategy", &STRATEGIES)?.unwrap_or(Strategy::RoundRobin);
    let key = call.query.text("key")?;
    if (strategy == Strategy::Sticky) != key.is_some() {
        return Err(bad_query("key", "with strategy=sticky, and only with it"));
    }
    let exclude = call.query.texts("exclude")?;
    let count = call.query.number("n", 1..=COUNT_MAX)?.unwrap_or(1);
    Ok(Wish {
        strategy,
        key: key.unwrap_or_default().into(),
        zone: call.query.text("zone")?.map(Into::into),
        count: usize::try_from(count).unwrap_or(1),
        exclude: exclude.into_iter().map(Into::into).collect(),
    })
}

fn answer(picked: &Picked, revision: Revision, raw: bool) -> Response {
    let items = picked.candidates.iter().map(|candidate| shown(&candidate.id, &candidate.instance));
    if !raw {
        let body = api::Picked { items: items.collect(), degraded: picked.degraded, revision: revision.0 };
        return respond::json(StatusCode::OK, revision, &body);
    }
    let lines: String = items.map(|instance| instance.authority() + "\n").collect();
    let mut response = respond::json_bytes(StatusCode::OK, revision, lines.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
