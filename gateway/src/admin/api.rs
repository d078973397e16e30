//! All routes and their description: those behind the token, and those for everybody.

use std::sync::{Arc, OnceLock};

use axum::http::StatusCode;
use axum::middleware;
use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, ResponseBuilder, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::{Admin, blocks, config, drain, gateway, health, sessions, shards, token};
use crate::observe;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Skein admin API",
        description = "What an operator may ask of a running gateway, and tell it. `skein ctl` is a \
                       client of it. Requests carry the token of `admin.token_file`."
    ),
    tags(
        (name = "sessions", description = "Who is here, and who is to go"),
        (name = "blocks", description = "Who is shut out"),
        (name = "gateway", description = "The gateway as a whole"),
        (name = "health", description = "For machines that watch it; without a token"),
        (name = "shards", description = "Its threads, and who keeps them busy")
    )
)]
struct Description;

/// Those that tell nothing about users.
fn for_everybody() -> OpenApiRouter<Arc<Admin>> {
    health::documented().merge(observe::documented())
}

fn behind_the_token() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::with_openapi(<Description as utoipa::OpenApi>::openapi())
        .routes(routes!(gateway::status))
        .routes(routes!(gateway::notice))
        .routes(routes!(drain::show, drain::begin, drain::end))
        .routes(routes!(config::reload))
        .routes(routes!(config::log, config::set_log))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::count))
        .routes(routes!(sessions::show))
        .routes(routes!(sessions::kick))
        .routes(routes!(blocks::list, blocks::add, blocks::remove))
        .routes(routes!(shards::list))
        .routes(routes!(shards::show))
        .routes(routes!(shards::top))
}

/// The API's description.
pub fn description() -> &'static OpenApi {
    static DESCRIPTION: OnceLock<OpenApi> = OnceLock::new();
    DESCRIPTION.get_or_init(|| {
        let mut api = behind_the_token().to_openapi();
        let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components.get_or_insert_default().add_security_scheme("token", token);
        api.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
        let problem = Content::new(Some(Ref::from_schema_name("Problem")));
        let refused = ResponseBuilder::new()
            .description("the token was not shown")
            .content("application/json", problem)
            .build();
        for operation in operations(&mut api) {
            operation.responses.responses.insert("401".into(), refused.clone().into());
        }
        let mut open = for_everybody().to_openapi();
        operations(&mut open).for_each(|operation| operation.security = Some(Vec::new()));
        api.merge(open);
        api
    })
}

fn operations(api: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    let paths = api.paths.paths.values_mut();
    paths.flat_map(|path| {
        [&mut path.get, &mut path.post, &mut path.put, &mut path.delete].into_iter().flatten()
    })
}

/// All of them.
pub(super) fn routes(admin: &Arc<Admin>) -> Router<Arc<Admin>> {
    let (open, _) = for_everybody().split_for_parts();
    let (router, _) = behind_the_token().split_for_parts();
    let checked = middleware::from_fn_with_state(admin.clone(), token::check);
    let wrong_method = || async { Problem::new(StatusCode::METHOD_NOT_ALLOWED, "not this method") };
    router
        .method_not_allowed_fallback(wrong_method)
        .route_layer(checked)
        .route("/v1/openapi.json", get(|| async { Json(description()) }))
        .merge(open)
}
