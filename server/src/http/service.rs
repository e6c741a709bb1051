//! ① Services: register, renew, deregister, drain, report; and their settings.

use coracle_api::{Code, Problem};
use coracle_recipes::service;

/// What the log refused.
pub fn problem(refusal: &service::Refusal) -> Problem {
    use service::Refusal;
    match refusal {
        Refusal::NotFound => Problem::new(Code::InstanceNotFound, "no such instance"),
        Refusal::Replaced(generation) => {
            let detail = format!("the instance was registered anew generation={generation}");
            Problem::new(Code::InstanceReplaced, detail).with("generation", generation.0)
        }
        Refusal::Lost(session) => {
            let detail = format!(
                "the session of the instance has ended: register it with a new one session={session}"
            );
            Problem::new(Code::SessionExpired, detail).with("session", session.to_string())
        }
        Refusal::TooManyInstances(limit) => {
            let detail = format!("over a limit limit=instances_per_service max={limit}");
            Problem::new(Code::TooLarge, detail).with("limit", "instances_per_service").with("max", limit)
        }
        Refusal::NoSettings => Problem::new(Code::ServiceNotFound, "the service has no settings of its own"),
    }
}
