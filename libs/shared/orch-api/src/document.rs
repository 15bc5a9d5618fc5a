//! The OpenAPI document, made from the table.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ComponentsBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, RefOr, Required, Response, ResponseBuilder};

use crate::endpoints::{ENDPOINTS, Endpoint, Media, Parameter, Place, Verb};
use crate::{ErrorBody, Shape};

const ERRORS: Shape = Shape::of::<ErrorBody>();
const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";
const KEY: &str = "key";

/// `/v2` as an OpenAPI 3.1 document.
pub fn openapi() -> Value {
    let mut paths: BTreeMap<&str, PathItem> = BTreeMap::new();
    for endpoint in ENDPOINTS {
        let item = PathItem::new(method(endpoint.verb), operation(endpoint));
        match paths.get_mut(endpoint.path) {
            Some(known) => known.merge_operations(item),
            None => drop(paths.insert(endpoint.path, item)),
        }
    }
    let mut listed = Paths::new();
    listed.paths.extend(paths.into_iter().map(|(path, item)| (path.to_owned(), item)));
    let info = InfoBuilder::new()
        .title("llama-orch")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "The control plane of llama-orch. Models are talked to under /v1 and /api, in the protocols that their \
             clients speak already.",
        ))
        .build();
    let document: OpenApi = OpenApiBuilder::new()
        .info(info)
        .paths(listed)
        .components(Some(components()))
        .security(Some([SecurityRequirement::new(KEY, [] as [&str; 0])]))
        .build();
    serde_json::to_value(document).unwrap_or_else(|error| json!({"error": error.to_string()}))
}

fn components() -> utoipa::openapi::Components {
    let mut schemas = Vec::new();
    for endpoint in ENDPOINTS {
        if let Media::Json(shape) | Media::JsonOrEvents(shape) | Media::Events(shape) = &endpoint.answer {
            shape.collect(&mut schemas);
        }
        if let Some(body) = &endpoint.body {
            body.collect(&mut schemas);
        }
    }
    ERRORS.collect(&mut schemas);
    let sorted: BTreeMap<String, RefOr<Schema>> = schemas.into_iter().collect();
    ComponentsBuilder::new()
        .schemas_from_iter(sorted)
        .security_scheme(KEY, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        .build()
}

const fn method(verb: Verb) -> HttpMethod {
    match verb {
        Verb::Get => HttpMethod::Get,
        Verb::Post => HttpMethod::Post,
        Verb::Patch => HttpMethod::Patch,
        Verb::Delete => HttpMethod::Delete,
    }
}

fn operation(endpoint: &Endpoint) -> utoipa::openapi::path::Operation {
    let mut operation = OperationBuilder::new()
        .operation_id(Some(endpoint.id))
        .summary(Some(endpoint.summary))
        .response(endpoint.status.to_string(), success(endpoint))
        .response("default", refusal());
    for parameter in endpoint.parameters {
        operation = operation.parameter(described(parameter));
    }
    if let Some(body) = &endpoint.body {
        let content = ContentBuilder::new().schema(Some(body.reference())).build();
        let body = RequestBodyBuilder::new().content(JSON, content).required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    operation.build()
}

fn described(parameter: &Parameter) -> utoipa::openapi::path::Parameter {
    let place = match parameter.place {
        Place::Path => ParameterIn::Path,
        Place::Query => ParameterIn::Query,
        Place::Header => ParameterIn::Header,
    };
    let kind = match parameter.kind {
        "integer" => Type::Integer,
        "boolean" => Type::Boolean,
        _ => Type::String,
    };
    let required = if parameter.place == Place::Path { Required::True } else { Required::False };
    let schema = Schema::Object(ObjectBuilder::new().schema_type(SchemaType::Type(kind)).build());
    ParameterBuilder::new()
        .name(parameter.name)
        .parameter_in(place)
        .required(required)
        .description(Some(parameter.meaning))
        .schema(Some(schema))
        .build()
}

fn success(endpoint: &Endpoint) -> Response {
    let answer = ResponseBuilder::new().description(endpoint.summary);
    let typed = |shape: &Shape| ContentBuilder::new().schema(Some(shape.reference())).build();
    let text = || {
        let schema = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).build();
        ContentBuilder::new().schema(Some(Schema::Object(schema))).build()
    };
    let answer = match &endpoint.answer {
        Media::Json(shape) => answer.content(JSON, typed(shape)),
        Media::Document => {
            let schema = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Object)).build();
            answer.content(JSON, ContentBuilder::new().schema(Some(Schema::Object(schema))).build())
        }
        Media::JsonOrEvents(shape) => {
            let list = Schema::Array(ArrayBuilder::new().items(shape.reference()).build());
            let json = ContentBuilder::new().schema(Some(list)).build();
            answer.content(JSON, json).content(EVENT_STREAM, text())
        }
        Media::Events(_) => answer.content(EVENT_STREAM, text()),
        Media::Nothing => answer,
    };
    answer.build()
}

fn refusal() -> Response {
    let content = ContentBuilder::new().schema(Some(ERRORS.reference())).build();
    ResponseBuilder::new().description("why not").content(JSON, content).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` in a document.
    fn references<'d>(value: &'d Value, found: &mut Vec<&'d str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_is_openapi_3_1_and_refers_to_nothing_that_it_lacks() {
        let document = openapi();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }

    #[test]
    fn every_endpoint_is_described_and_tells_how_it_refuses() {
        let document = openapi();
        for endpoint in ENDPOINTS {
            let method = endpoint.verb.label().to_ascii_lowercase();
            let operation = &document["paths"][endpoint.path][&method];
            assert_eq!(operation["operationId"], endpoint.id);
            assert!(!operation["responses"]["default"].is_null(), "{}", endpoint.path);
        }
    }

    #[test]
    fn every_type_is_explained() {
        let document = openapi();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            assert!(schema["description"].is_string(), "{name} is not explained");
        }
    }
}
