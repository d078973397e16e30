//! Connections of the admin listener: few at a time, and none that lasts for ever.

use std::convert::Infallible;
use std::net::TcpListener;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_io_timeout::TimeoutStream;

use super::places::{Place, Places};

/// A client that has not said what it wants by then is dropped; so is one that says nothing more.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);

/// A request that takes longer is given up.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);

/// A client that reads nothing of its answer for so long is dropped.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// A connection gets no more requests after this time, and ends after another [`ANSWER_PATIENCE`]:
/// one that reads a byte now and then would keep its place.
const MAX_LIFE: Duration = Duration::from_secs(60);

/// Wait after a failed accept: for want of descriptors, which passes.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the listener breaks.
pub(super) async fn accept(listener: TcpListener, router: Router) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Places::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match places.enter(peer.ip()) {
                Some(place) => {
                    tokio::spawn(serve(stream, router.clone(), place));
                }
                None => tracing::debug!(%peer, "the admin listener has no place for it"),
            },
            Err(error) => {
                tracing::debug!(%error, "a connection to the admin listener failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(stream: tokio::net::TcpStream, router: Router, place: Place) {
    let service = TowerToHyperService::new(router);
    let answer = service_fn(move |request: Request<Incoming>| {
        let answered = hyper::service::Service::call(&service, request);
        async move {
            let answered = tokio::time::timeout(ANSWER_PATIENCE, answered).await;
            Ok::<Response<Body>, Infallible>(match answered {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => too_slow(),
            })
        }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(READ_PATIENCE));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .serve_connection(TokioIo::new(Box::pin(stream)), answer);
    let mut connection = std::pin::pin!(connection);
    // A client that goes away takes nothing with it.
    if tokio::time::timeout(MAX_LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(ANSWER_PATIENCE, connection).await;
    }
    drop(place);
}

fn too_slow() -> Response<Body> {
    let mut response = Response::new(Body::from("this took too long\n"));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}
