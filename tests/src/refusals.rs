//! Tables of requests that must be refused.

use crate::http::Http;
use crate::node::Node;

/// A request with the problem it must get.
pub struct Bad {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
}

/// `method` and `path` with `body` must be answered with `status` and `code`.
pub fn bad(
    method: &'static str,
    path: impl Into<String>,
    body: impl Into<Vec<u8>>,
    status: u16,
    code: &'static str,
) -> Bad {
    Bad { method, path: path.into(), headers: Vec::new(), body: body.into(), status, code }
}

impl Bad {
    /// The same with a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// Sends each, and looks at the node after each: it is refused so, has changed nothing, and hurt nobody.
///
/// # Panics
/// If not.
pub async fn all_are_refused(node: &Node, table: Vec<Bad>) {
    let http: &Http = node.http();
    let state = node.state().await.expect("an answer");
    let mut wrong = Vec::new();
    for Bad { method, path, headers, body, status, code } in table {
        let mut call = http.call(method.parse().expect("a method"), &path).body(body);
        for (name, value) in &headers {
            call = call.header(name, value);
        }
        let reply = match call.send().await {
            Ok(reply) => reply,
            Err(error) => {
                wrong.push(format!("{method} {path}: no answer: {error:#}"));
                continue;
            }
        };
        if (reply.status, reply.code().as_str()) != (status, code) {
            wrong.push(format!("expected {status} {code}: {headers:?} {reply:?}"));
            continue;
        }
        if method != "HEAD" {
            reply.check_problem();
        }
        if node.state().await.expect("an answer") != state {
            wrong.push(format!("changed something: {reply:?}"));
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    http.get("/readyz").expect(200).await;
    assert!(!node.log().contains("panicked"), "a panic");
}
