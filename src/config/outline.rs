//! What the keys of a file are. Written down by the reader while it asks for them, so that the
//! JSON Schema cannot differ from what is read.

use serde_json::{Map, Value as Json, json};

/// The keys of a map, in the order in which they are read.
pub(crate) type Outline = Vec<KeyOutline>;

/// One key: what it is called, what it is for, what it holds.
#[derive(Debug)]
pub(crate) struct KeyOutline {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) shape: Shape,
    pub(crate) presence: Presence,
}

/// Whether a key must be there, and what holds if it is not.
#[derive(Debug)]
pub(crate) enum Presence {
    Required,
    Default(Json),
    /// The value is worked out from others; the key's doc says how.
    Derived,
}

/// The form of a value.
#[derive(Debug)]
pub(crate) enum Shape {
    Integer {
        min: u64,
        max: u64,
    },
    Text(TextShape),
    Choice(Vec<&'static str>),
    List {
        items: Box<Shape>,
        min: usize,
        max: usize,
    },
    Map(Outline),
}

/// The form of a text.
#[derive(Debug)]
pub(crate) struct TextShape {
    pub(crate) wanted: String,
    pub(crate) pattern: Option<String>,
}

/// The JSON Schema (draft 7, which the YAML language servers know) of a file.
pub(crate) fn schema(title: &str, outline: &Outline) -> Json {
    let mut schema = map_schema(outline);
    schema.insert(
        "$schema".to_owned(),
        "http://json-schema.org/draft-07/schema#".into(),
    );
    schema.insert("title".to_owned(), title.into());
    Json::Object(schema)
}

fn map_schema(outline: &Outline) -> Map<String, Json> {
    let mut properties = Map::new();
    let mut required: Vec<Json> = Vec::new();
    for key in outline {
        let mut property = shape_schema(&key.shape);
        property.insert("description".to_owned(), description(key).into());
        match &key.presence {
            Presence::Required => required.push(key.name.into()),
            Presence::Default(value) => {
                property.insert("default".to_owned(), value.clone());
            }
            Presence::Derived => {}
        }
        properties.insert(key.name.to_owned(), Json::Object(property));
    }
    let mut schema = object(json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    }));
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

fn description(key: &KeyOutline) -> String {
    match &key.shape {
        Shape::Text(text) => format!("{}\nWritten as {}.", key.doc, text.wanted),
        _ => key.doc.to_owned(),
    }
}

fn shape_schema(shape: &Shape) -> Map<String, Json> {
    match shape {
        // A maximum that is only the type's says nothing, and doubles cannot hold it.
        Shape::Integer { min, max: u64::MAX } => object(json!({"type": "integer", "minimum": min})),
        Shape::Integer { min, max } => {
            object(json!({"type": "integer", "minimum": min, "maximum": max}))
        }
        Shape::Text(TextShape {
            pattern: Some(pattern),
            ..
        }) => object(json!({"type": "string", "pattern": pattern})),
        Shape::Text(_) => object(json!({"type": "string", "minLength": 1})),
        Shape::Choice(words) => object(json!({"type": "string", "enum": words})),
        Shape::List { items, min, max } => object(json!({
            "type": "array",
            "items": shape_schema(items),
            "minItems": min,
            "maxItems": max,
        })),
        Shape::Map(outline) => map_schema(outline),
    }
}

fn object(value: Json) -> Map<String, Json> {
    match value {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}
