//! ① ⑦ The objects of a recipe: read one, read all in pages, or follow them, from one description of the family; and
//! change one by one operation.

use coracle_api::{Code, Problem};
use coracle_recipes as recipes;
use coracle_store::{Outcome, Revision, Selection, View};
use http::StatusCode;
use serde::Serialize;

use super::call::{Call, outcome, unexpected};
use super::list::Listing;
use super::message::Response;
use super::problem::{Answer, Refused};
use super::{respond, watch};

/// A family whose objects have a name and one form each.
pub struct Objects<T: 'static> {
    /// `counters`
    pub family: &'static str,
    /// Names that start with a prefix, behind a name, at most so many.
    pub names: fn(View<'_>, &str, Option<&str>, usize) -> Vec<String>,
    /// One of them; `None` if there is nothing by that name.
    pub show: fn(View<'_>, &str) -> Option<T>,
}

/// Where the name of the object is in `/v1/{family}/{name}`.
pub const NAME: usize = 2;

impl<T: Serialize> Objects<T> {
    /// What to watch for one object, or for all with an empty name.
    pub fn selection(&self, name: &str) -> Answer<Selection> {
        recipes::selection(self.family, name)
            .ok_or_else(|| Refused::from(Problem::new(Code::Internal, "the recipe is not in the list")))
    }

    /// `GET /v1/{family}/{name}`: the object, or what `absent` says of its name.
    pub async fn one(&'static self, mut call: Call, absent: impl FnOnce(&str) -> Problem) -> Answer {
        let name = call.name(NAME)?;
        let selection = self.selection(&name)?;
        if let Some(watching) = watch::asked(&mut call)? {
            return watch::open(call, watching, self.scope(selection, Some(name), String::new())).await;
        }
        if let Some(revision) = call.ready(selection).await? {
            return Ok(respond::not_modified(revision));
        }
        let (shown, revision) =
            call.edge.node.read(|store| ((self.show)(store.view(), &name), store.revision()));
        match shown {
            Some(shown) => Ok(respond::json(StatusCode::OK, revision, &shown)),
            None => Err(absent(&name).at_revision(revision.0).into()),
        }
    }

    /// `GET /v1/{family}`
    pub async fn list(&'static self, mut call: Call) -> Answer {
        let prefix = call.query.text("prefix")?.unwrap_or_default();
        let selection = self.selection("")?;
        if let Some(watching) = watch::asked(&mut call)? {
            return watch::open(call, watching, self.scope(selection, None, prefix)).await;
        }
        let listing = Listing::of(&mut call, &[self.family.as_bytes(), prefix.as_bytes()])?;
        if let Some(unchanged) = listing.ready(&mut call, selection).await? {
            return Ok(unchanged);
        }
        let names = |view: View<'_>, after: Option<&str>, limit| (self.names)(view, &prefix, after, limit);
        Ok(listing.page(&call, names, self.show)?.answer())
    }

    /// One object or those whose names start with `prefix`, followed.
    pub fn scope(&'static self, selection: Selection, name: Option<String>, prefix: String) -> watch::Scope {
        let told = watch::named(name.clone(), prefix.clone());
        let names = move |view: View<'_>, after: Option<&str>, limit| match &name {
            Some(name) => after.is_none().then(|| name.clone()).into_iter().collect(),
            None => (self.names)(view, &prefix, after, limit),
        };
        watch::Scope::family(selection, names, self.show, told)
    }
}

/// What the log answered to an operation of a recipe.
pub struct Applied {
    pub revision: Revision,
    pub replayed: bool,
    pub outcome: recipes::Outcome,
}

/// Put one operation of a recipe into the log: with the guards and the idempotency key, after the last parameter.
pub async fn apply(call: &mut Call, body: &[u8], operation: recipes::Operation) -> Answer<Applied> {
    let mutation = call.mutation(body)?;
    let (revision, replayed, outcome) = outcome(call.propose(mutation, operation.encode()).await?)?;
    let Outcome::Program(bytes) = &outcome else { return Err(unexpected(&outcome)) };
    match recipes::Outcome::decode(bytes) {
        Ok(outcome) => Ok(Applied { revision, replayed, outcome }),
        Err(_) => Err(unexpected(&outcome)),
    }
}

/// The log answered another operation than was asked.
pub fn odd(outcome: &recipes::Outcome) -> Refused {
    tracing::error!(?outcome, "unexpected outcome");
    Problem::new(Code::Internal, "the log answered something unexpected").into()
}

impl Applied {
    /// The answer to it.
    pub fn answer(&self, status: StatusCode, body: &impl Serialize) -> Response {
        respond::replayed(respond::json(status, self.revision, body), self.replayed)
    }
}
