//! The admin endpoint: `/metrics` (Prometheus), `/health/live`, `/health/ready`, `/` (what is here).

use core::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::observe::metrics::{MetricPage, prometheus};
use crate::runtime::thread;

/// What the endpoint shows.
#[derive(Clone, Default)]
pub struct AdminState {
    /// One page per core.
    pub pages: Vec<MetricPage>,
    /// Whether clients can connect.
    pub ready: Arc<AtomicBool>,
}

/// Binds and serves on a thread of its own; the bound address.
pub fn start(address: &str, state: AdminState) -> Result<SocketAddr, String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!("cannot serve admin HTTP on {address}: {error}; choose another with --admin")
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(address))
        .map_err(|error| failed(&error))?;
    let bound = listener.local_addr().map_err(|error| failed(&error))?;
    thread::start("admin", move || {
        if let Err(error) = runtime.block_on(axum::serve(listener, routes(state)).into_future()) {
            tracing::error!(%error, "admin HTTP ended");
        }
    })
    .map_err(|error| failed(&error))?;
    Ok(bound)
}

fn routes(state: AdminState) -> Router {
    Router::new()
        .route(
            "/",
            get(async || "Percolog: /metrics /health/live /health/ready\n"),
        )
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state)
}

async fn ready(State(state): State<AdminState>) -> (StatusCode, &'static str) {
    if state.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(state): State<AdminState>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        prometheus(&state.pages),
    )
}
