//! `get_schema`: a schema of the registry.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{KAFKA, Tool, max_chars, number, object, text};
use crate::mcp::call::Call;
use crate::mcp::view::{Answer, CHARS, Refused, time};
use crate::ports::{RegisteredSchema, SchemaFormat};

pub(in crate::mcp) const TOOL: Tool = Tool {
    name: "get_schema",
    description: "Get a registered schema: the newest of a subject (topic-value, topic-key), or the one with an id.",
    scopes: KAFKA,
    schema,
    is_there: |ports| ports.registry.is_some(),
    run: |call| Box::pin(run(call)),
};

fn schema() -> Value {
    object(
        &[],
        json!({
            "subject": text("The subject, as in orders-value"),
            "id": number(0, i64::from(u32::MAX), "The schema's id, as records carry it"),
            "max_chars": max_chars(),
        }),
    )
}

#[derive(Deserialize)]
struct Input {
    subject: Option<String>,
    id: Option<u32>,
    max_chars: Option<usize>,
}

async fn run(call: Call<'_>) -> Result<Answer, Refused> {
    let input: Input = call.input()?;
    let Some(registry) = &call.desk.ports.registry else {
        return Err(Refused::new("no_registry", "no schema registry is configured").next("tell the operator"));
    };
    let (found, what) = match (&input.subject, input.id) {
        (Some(subject), None) => (registry.latest(subject).await?, format!("subject `{subject}`")),
        (None, Some(id)) => (registry.schema(id).await?, format!("schema {id}")),
        _ => {
            let refused = Refused::new("missing_argument", "either `subject` or `id` is needed").field("subject");
            return Err(refused.next("name the subject, which is the topic with -value or -key behind it"));
        }
    };
    let Some(found) = found else {
        return Err(Refused::new("unknown_schema", format!("the registry has no {what}"))
            .field(if input.id.is_some() { "id" } else { "subject" })
            .next("subjects are called topic-value and topic-key; list_datasets names the topics"));
    };
    let mut references = Vec::new();
    collect(&found, &mut references);
    let mut answer = Answer::new(json!({"time": time(call.desk.clock.now_ms())}))
        .with("id", found.id)
        .with(
            "format",
            match found.format {
                SchemaFormat::Avro => "avro",
                SchemaFormat::Protobuf => "protobuf",
                SchemaFormat::Json => "json_schema",
            },
        )
        .list("references", references)
        .list("schema", lines(&found));
    answer.chars = input.max_chars.unwrap_or(CHARS);
    answer.rest = "raise max_chars";
    Ok(answer)
}

/// The schema in lines, which an answer may be cut between; JSON with one member a line.
fn lines(schema: &RegisteredSchema) -> Vec<Value> {
    let parsed = serde_json::from_str::<Value>(&schema.text).ok();
    let text = parsed.and_then(|value| serde_json::to_string_pretty(&value).ok());
    text.as_deref().unwrap_or(&schema.text).lines().map(Value::from).collect()
}

fn collect(schema: &RegisteredSchema, into: &mut Vec<Value>) {
    for (name, referred) in &schema.references {
        into.push(json!({"name": name, "id": referred.id}));
        collect(referred, into);
    }
}
