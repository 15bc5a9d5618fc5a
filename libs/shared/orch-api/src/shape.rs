//! Types as schemas: those of this crate make their own, those of orch-core get theirs here.

use std::borrow::Cow;

use orch_core::{DesiredState, Health, Priority, Scope, Status};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{ArrayBuilder, Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// The type of a body, in a table.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    name: fn() -> Cow<'static, str>,
    schema: fn() -> RefOr<Schema>,
    collect: fn(&mut Vec<(String, RefOr<Schema>)>),
    is_list: bool,
}

impl Shape {
    /// One value of a type.
    pub const fn of<T: ToSchema + PartialSchema>() -> Self {
        Self { name: T::name, schema: T::schema, collect: T::schemas, is_list: false }
    }

    /// A list of them.
    pub const fn list_of<T: ToSchema + PartialSchema>() -> Self {
        Self { is_list: true, ..Self::of::<T>() }
    }

    /// How a body refers to it.
    pub(crate) fn reference(&self) -> RefOr<Schema> {
        let reference = RefOr::Ref(Ref::from_schema_name((self.name)()));
        if !self.is_list {
            return reference;
        }
        RefOr::T(Schema::Array(ArrayBuilder::new().items(reference).build()))
    }

    /// Itself and every type in it, by name.
    pub(crate) fn collect(&self, into: &mut Vec<(String, RefOr<Schema>)>) {
        into.push(((self.name)().into_owned(), (self.schema)()));
        (self.collect)(into);
    }
}

fn words(words: impl Iterator<Item = &'static str>) -> Schema {
    let words: Vec<&str> = words.collect();
    Schema::Object(
        ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).enum_values(Some(words)).build(),
    )
}

/// The words of [`Status`].
pub(crate) fn status_schema() -> Schema {
    words(Status::ALL.iter().map(|status| status.label()))
}

/// The words of [`Health`].
pub(crate) fn health_schema() -> Schema {
    words(Health::ALL.iter().map(|health| health.label()))
}

/// The words of [`DesiredState`].
pub(crate) fn desired_state_schema() -> Schema {
    words(DesiredState::ALL.iter().map(|state| state.label()))
}

/// Words of [`Scope`].
pub(crate) fn scopes_schema() -> Schema {
    let scope = words(Scope::ALL.iter().map(|scope| scope.label()));
    Schema::Array(ArrayBuilder::new().items(RefOr::T(scope)).build())
}

/// The words of [`Priority`], or null.
pub(crate) fn priority_schema() -> Schema {
    let null = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null)).build();
    let priority = words(Priority::ALL.iter().map(|priority| priority.label()));
    Schema::OneOf(OneOfBuilder::new().item(null).item(priority).build())
}

/// `r0`, `r1`, …
pub(crate) fn replica_schema() -> Schema {
    let object = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).pattern(Some("^r[0-9]+$"));
    Schema::Object(object.build())
}

/// A number of [`orch_core::ExitCode`], or null.
pub(crate) fn exit_code_schema() -> Schema {
    let types = SchemaType::from_iter([Type::Integer, Type::Null]);
    Schema::Object(ObjectBuilder::new().schema_type(types).build())
}

/// An [`orch_core::Failure`], or null.
pub(crate) fn failure_schema() -> Schema {
    let text = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).build();
    let number = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)).build();
    let failure = ObjectBuilder::new()
        .property("exit_code", number)
        .property("message", text())
        .property("hint", text())
        .required("exit_code")
        .required("message")
        .build();
    let null = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null)).build();
    Schema::OneOf(OneOfBuilder::new().item(null).item(failure).build())
}
