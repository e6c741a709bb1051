//! ① Where a path and a method lead: found in the rows of [`routes`], made once.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;

use coracle_api::{Code, Problem};
use http::Method;

use super::call::Call;
use super::problem::{Answer, Refused};
use super::{kv, routes};

/// What answers a call.
pub type Handler = Box<dyn Fn(Call) -> Handled + Send + Sync>;

/// An answer under way. In a box, because hyper keeps its place for as long as the connection lives, and most of them
/// are idle.
pub type Handled = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Keys, whose paths are names: the label of all of them, and where they lead.
const KEYS: &str = "/v1/kv";

/// One path with its methods.
struct Path {
    path: &'static str,
    methods: Vec<(Method, Handler)>,
}

/// Where a request goes, and the route it is counted under: never a name that a client chose.
///
/// # Errors
/// `route_not_found`, `method_not_allowed`: as its answer, under the route of the path.
pub fn lead(method: &Method, path: &str) -> (&'static str, Answer<&'static Handler>) {
    if is_key(path) {
        return (KEYS, Ok(keys()));
    }
    let Ok(found) = table().at(path) else {
        let detail = format!("there is nothing at this path path={path:?}");
        return ("other", Err(Problem::new(Code::RouteNotFound, detail).into()));
    };
    let Path { path, methods } = found.value;
    let of = |method: &Method| methods.iter().find(|(known, _)| known == method);
    let taken = of(method).or_else(|| (method == Method::HEAD).then(|| of(&Method::GET)).flatten());
    (path, taken.map(|(_, handler)| handler).ok_or_else(|| no_method(method, path, methods)))
}

fn keys() -> &'static Handler {
    static KEYS: OnceLock<Handler> = OnceLock::new();
    KEYS.get_or_init(|| Box::new(|call| Box::pin(kv::serve(call))))
}

fn no_method(method: &Method, path: &str, methods: &[(Method, Handler)]) -> Refused {
    let mut allowed: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
    if let Some(get) = allowed.iter().position(|method| *method == "GET")
        && !allowed.contains(&"HEAD")
    {
        allowed.insert(get + 1, "HEAD");
    }
    let detail = format!("the path does not take this method method={method} path={path}");
    Problem::new(Code::MethodNotAllowed, detail).with("allowed", allowed.join(", ")).into()
}

fn is_key(path: &str) -> bool {
    path.strip_prefix(KEYS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn table() -> &'static matchit::Router<Path> {
    static TABLE: OnceLock<matchit::Router<Path>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut paths: Vec<Path> = Vec::new();
        for row in routes::families().into_iter().flat_map(|family| family.rows) {
            let (path, method) = (row.path, (row.method, row.handler));
            match paths.iter_mut().find(|known| known.path == path) {
                Some(known) => known.methods.push(method),
                None => paths.push(Path { path, methods: vec![method] }),
            }
        }
        let mut table = matchit::Router::new();
        for path in paths {
            table.insert(path.path, path).expect("no two rows claim one path in different words");
        }
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: &Method, path: &str) -> (&'static str, Option<Code>) {
        let (route, handler) = lead(method, path);
        (route, handler.err().map(|refused| refused.0.code))
    }

    #[test]
    fn the_route_of_a_path_never_names_a_name() {
        for (path, route_of_it) in [
            ("/v1/locks/secret", "/v1/locks/{name}"),
            ("/v1/locks/secret%2Fx", "/v1/locks/{name}"),
            ("/v1/sessions/7587d8aa00000001", "/v1/sessions/{id}"),
            ("/v1/kv", "/v1/kv"),
            ("/v1/kv/", "/v1/kv"),
            ("/v1/kv//a", "/v1/kv"),
            ("/livez", "/livez"),
        ] {
            assert_eq!(route(&Method::GET, path), (route_of_it, None), "{path}");
            assert_eq!(route(&Method::HEAD, path), (route_of_it, None), "{path}");
        }
        for path in ["/v1/locks/", "/v1/locks/secret/acquire/more", "/v1/nothing/secret", "/v1/kvx", "/"] {
            assert_eq!(route(&Method::GET, path), ("other", Some(Code::RouteNotFound)), "{path}");
        }
    }

    #[test]
    fn a_method_that_a_path_does_not_take_is_told_those_it_takes() {
        let (route, handler) = lead(&Method::DELETE, "/v1/locks/a/acquire");
        let problem = handler.err().expect("refused").0;
        assert_eq!((route, problem.code), ("/v1/locks/{name}/acquire", Code::MethodNotAllowed));
        assert_eq!(problem.extra["allowed"], "POST");
        let (_, handler) = lead(&Method::POST, "/v1/locks/a");
        assert_eq!(handler.err().expect("refused").0.extra["allowed"], "GET, HEAD, PUT, DELETE");
    }
}
