//! The page: a few files, which are a part of the program. They are the same for everybody, and say
//! nothing of any order.

use axum::Router;
use axum::routing::get;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

/// What the page may do: take its own scripts and styles, ask its own server, and make no markup out of
/// text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Each of its files once: its path, its type, and what it says.
macro_rules! files {
    ($($path:literal, $kind:ident, $file:literal;)*) => {
        /// What is open to everyone.
        pub(super) const PATHS: &[&str] = &[$($path),*];

        const FILES: &[(&str, &str, &str)] =
            &[$(($path, $kind, include_str!(concat!("page/", $file)))),*];
    };
}

files! {
    "/manage/dashboard", HTML, "index.html";
    "/manage/dashboard/style.css", STYLE, "style.css";
    "/manage/dashboard/app.js", SCRIPT, "app.js";
    "/manage/dashboard/dom.js", SCRIPT, "dom.js";
    "/manage/dashboard/live.js", SCRIPT, "live.js";
    "/manage/dashboard/map.js", SCRIPT, "map.js";
    "/manage/dashboard/charts.js", SCRIPT, "charts.js";
    "/manage/dashboard/explain.js", SCRIPT, "explain.js";
    "/manage/dashboard/ledger.js", SCRIPT, "ledger.js";
    "/manage/dashboard/trouble.js", SCRIPT, "trouble.js";
}

/// All of them.
pub(super) fn routes() -> Router {
    FILES.iter().fold(Router::new(), |routes, (path, kind, text)| {
        let file = ([(CONTENT_TYPE, *kind), (CONTENT_SECURITY_POLICY, POLICY)], *text);
        routes.route(path, get(async move || file))
    })
}
