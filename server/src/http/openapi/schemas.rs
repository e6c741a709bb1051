//! Schemas of requests and of answers: one name, unless they differ in what must be there.

use std::collections::BTreeSet;

use coracle_api::Problem;
use schemars::generate::{Contract, SchemaSettings};
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

const SCHEMAS: &str = "#/components/schemas/";
/// Before the name of a type of a request, until it is known whether it needs a name of its own.
const REQUEST: &str = "request ";

/// Collects schemas while the document is made.
pub struct Schemas {
    answers: SchemaGenerator,
    requests: SchemaGenerator,
}

impl Schemas {
    pub fn new() -> Self {
        let generator = |contract: Contract| {
            let mut settings = SchemaSettings::draft2020_12();
            settings.meta_schema = None;
            settings.definitions_path = "/components/schemas".into();
            settings.contract = contract;
            settings.into_generator()
        };
        let mut answers = generator(Contract::Serialize);
        answers.subschema_for::<Problem>();
        Self { answers, requests: generator(Contract::Deserialize) }
    }

    pub fn answer(&mut self, schema: impl FnOnce(&mut SchemaGenerator) -> Schema) -> Value {
        never_null(schema(&mut self.answers).to_value())
    }

    pub fn request(&mut self, schema: impl FnOnce(&mut SchemaGenerator) -> Schema) -> Value {
        renamed(schema(&mut self.requests).to_value(), &|name| format!("{REQUEST}{name}"))
    }

    /// The document with all schemas that it refers to.
    pub fn put_into(mut self, mut document: Value) -> Value {
        let answers: Map<String, Value> = self
            .answers
            .take_definitions(true)
            .into_iter()
            .map(|(name, schema)| (name, never_null(schema)))
            .collect();
        let requests = self.requests.take_definitions(true);
        let own = names_of_their_own(&answers, &requests);
        let name = |name: &str| {
            let Some(plain) = name.strip_prefix(REQUEST) else { return name.to_owned() };
            if own.contains(plain) { format!("{plain}Request") } else { plain.to_owned() }
        };
        document = renamed(document, &name);
        let in_request = |plain: &str| name(&format!("{REQUEST}{plain}"));
        let mut all = answers;
        for (plain, schema) in requests {
            all.insert(in_request(&plain), renamed(schema, &in_request));
        }
        document["components"]["schemas"] = json!(all);
        document
    }
}

/// Names that mean one thing in requests and another in answers, there or in something they refer to.
fn names_of_their_own(answers: &Map<String, Value>, requests: &Map<String, Value>) -> BTreeSet<String> {
    let mut own: BTreeSet<String> = BTreeSet::new();
    loop {
        let before = own.len();
        for (name, schema) in requests {
            let Some(answer) = answers.get(name) else { continue };
            let mut refers = false;
            visit(schema, &mut |to| refers |= own.contains(to));
            if answer != schema || refers {
                own.insert(name.clone());
            }
        }
        if own.len() == before {
            return own;
        }
    }
}

/// Every name that a schema refers to.
fn visit(schema: &Value, see: &mut impl FnMut(&str)) {
    match schema {
        Value::Object(members) => {
            if let Some(to) =
                members.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix(SCHEMAS))
            {
                see(to);
            }
            members.values().for_each(|member| visit(member, see));
        }
        Value::Array(items) => items.iter().for_each(|item| visit(item, see)),
        _ => {}
    }
}

/// The same with other names behind its references.
fn renamed(value: Value, name: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::Object(members) => {
            let rename = |(member, value): (String, Value)| match &value {
                Value::String(to) if member == "$ref" => match to.strip_prefix(SCHEMAS) {
                    Some(to) => (member, format!("{SCHEMAS}{}", name(to)).into()),
                    None => (member, value),
                },
                _ => (member, renamed(value, name)),
            };
            members.into_iter().map(rename).collect()
        }
        Value::Array(items) => items.into_iter().map(|item| renamed(item, name)).collect(),
        other => other,
    }
}

/// In answers a member that need not be there is absent, not null, unless its type says so (`x-null`).
fn never_null(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(members) => {
            // What a reader makes of an absent member, not what is ever written.
            if members.contains_key("type") || members.contains_key("$ref") {
                members.remove("default");
            }
            let required: BTreeSet<String> = match members.get("required").and_then(Value::as_array) {
                Some(names) => names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect(),
                None => BTreeSet::new(),
            };
            if let Some(Value::Object(properties)) = members.get_mut("properties") {
                for (_, property) in properties.iter_mut().filter(|(name, _)| !required.contains(*name)) {
                    if property.as_object_mut().and_then(|members| members.remove("x-null")).is_none() {
                        without_null(property);
                    }
                }
            }
            members.values_mut().for_each(|member| *member = never_null(member.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = never_null(item.take())),
        _ => {}
    }
    schema
}

fn without_null(property: &mut Value) {
    if let Some(Value::Array(kinds)) = property.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            property["type"] = kind.clone();
        }
    }
    if let Some(Value::Array(choices)) = property.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            if let Some(members) = property.as_object_mut() {
                members.remove("anyOf");
                members.extend(only);
            }
        }
    }
}
