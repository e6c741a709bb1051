//! ⑦ The refusal of a request at overload: its text made once, because it is asked for when there is too much to do.

use coracle_api::{Code, PROBLEM_JSON, Problem};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::front::RequestId;
use super::json;
use super::message::{Body, Response};
use super::problem::retry_after;
use super::respond::{self, REVISION};

/// A problem up to the id of its request, from there to the revision, and after it.
pub struct Overload([Vec<u8>; 3], HeaderMap);

impl Overload {
    /// For a node that works on at most `max` requests at once.
    pub fn new(max: usize) -> Self {
        let (id, revision) = ("{id}", u64::MAX);
        let detail = format!("too many requests at once max={max}");
        let mut problem = Problem::new(Code::Overloaded, detail).with("max", max).at_revision(revision);
        problem.instance = Some(format!("/requests/{id}"));
        let text = serde_json::to_string(&problem).unwrap_or_default();
        let (head, rest) = text.split_once(id).unwrap_or_default();
        let (between, tail) = rest.split_once(&revision.to_string()).unwrap_or_default();
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(after) = retry_after(Code::Overloaded) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
        Self([head.into(), between.into(), tail.into()], headers)
    }

    /// The answer to one request.
    pub fn answer(&self, id: &RequestId, revision: u64) -> Response {
        let Self([head, between, tail], headers) = self;
        let mut body = Vec::with_capacity(head.len() + between.len() + tail.len() + 64);
        body.extend_from_slice(head);
        body.extend_from_slice(&id.text());
        body.extend_from_slice(between);
        json::number(&mut body, revision);
        body.extend_from_slice(tail);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        *response.headers_mut() = headers.clone();
        response.headers_mut().insert(REVISION, respond::number(revision));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_problem_of_its_code() {
        let id = RequestId::next();
        let response = Overload::new(7).answer(&id, 41);
        assert_eq!(response.status(), Code::Overloaded.status());
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(response.headers()[REVISION], "41");
        let Body::Whole(body) = response.into_body() else { panic!("a body that is whole") };
        let expected = Problem::new(Code::Overloaded, "too many requests at once max=7").with("max", 7);
        let mut expected = expected.at_revision(41);
        expected.instance = Some(format!("/requests/{id}"));
        assert_eq!(std::str::from_utf8(&body).unwrap(), serde_json::to_string(&expected).unwrap());
    }
}
