//! Chat templates: from messages to the text that a model was trained on.
//!
//! The language is Jinja, in the environment that the transformers package gives chat templates.

mod marks;
mod python;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// The text; `None` where a turn has other content, such as calls of tools.
    #[serde(default)]
    pub content: Option<String>,
    /// What else the turn has: `tool_calls`, `name`, `reasoning_content` ... Templates see these fields beside
    /// the role and the content.
    #[serde(flatten)]
    pub extra: Map<String, Json>,
}

impl Message {
    /// A turn of this role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: Some(content.into()), extra: Map::new() }
    }

    /// The text, empty without one.
    pub fn text(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }
}

/// Why a chat template could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template does not parse.
    #[error("line {line} of the chat template does not parse: {what}; compare it with the model's source")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What the engine says.
        what: String,
    },
    /// The template failed or refused the messages.
    #[error("line {line} of the chat template failed: {what}; check the roles and their order")]
    Render {
        /// The line, from 1.
        line: usize,
        /// What the engine or the template says.
        what: String,
    },
    /// The marks of the generated parts cannot be placed.
    #[error("the parts that the chat template marks as generated cannot be told: {what}")]
    Marks {
        /// What is in the way.
        what: &'static str,
    },
    /// The model has none.
    #[error(
        "the model has no chat template; use a plain prompt, or add chat_template to tokenizer_config.json"
    )]
    Missing,
}

/// The text of a conversation and the parts of it that the template marks as the assistant's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The text, as [`ChatTemplate::render_with`] gives it.
    pub text: String,
    /// Bytes of the text between `{% generation %}` and `{% endgeneration %}`, in order, without empty ones.
    pub spans: Vec<Range<usize>>,
}

/// A compiled chat template.
///
/// Runs in the environment that the transformers package gives templates: blocks are trimmed, `raise_exception`,
/// `strftime_now` and `tojson` exist, Python's methods work on strings, lists and maps, and the special tokens
/// (`bos_token`, `eos_token` ...) are variables. `strftime_now` is in UTC. `{% generation %}` marks the part that an
/// assistant writes, which [`ChatTemplate::render_marked`] tells; it does not change the text.
///
/// The time that `strftime_now` tells is an input like the messages: it is fixed when the template is made, and
/// [`ChatTemplate::at`] sets another, so that a run that records [`ChatTemplate::now`] can be repeated.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    special: BTreeMap<String, String>,
    now: SystemTime,
    tells_time: bool,
    marks: bool,
}

const NAME: &str = "chat_template";
const TIME: &str = "strftime_now";

impl ChatTemplate {
    /// Compiles a template with the two special tokens that templates use, at the time of this call.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, TemplateError> {
        let tokens = [("bos_token", bos), ("eos_token", eos)];
        let special = tokens.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
        Self::with_special(source, special, SystemTime::now())
    }

    /// Compiles a template. `special` holds the variables for special tokens (`bos_token`, `pad_token` ...); `now`
    /// is the time that `strftime_now` tells.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn with_special(
        source: &str,
        special: BTreeMap<String, String>,
        now: SystemTime,
    ) -> Result<Self, TemplateError> {
        let mut env = Environment::new();
        let syntax = |e: &Error| TemplateError::Syntax { line: e.line().unwrap_or(1), what: describe(e) };
        let config =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| syntax(&e))?;
        env.set_syntax(config);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_function("raise_exception", |what: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, what))
        });
        env.add_filter("tojson", python::to_json);
        env.add_test("iterable", python::is_iterable);
        env.add_filter(marks::FILTER, marks::mark);
        let (source, marks) = marks::as_filter(source);
        let tells_time = source.contains(TIME);
        env.add_template_owned(NAME, source).map_err(|e| syntax(&e))?;
        Ok(ChatTemplate { env, special, now, tells_time, marks }.at(now))
    }

    /// The same template at another time.
    #[must_use]
    pub fn at(mut self, now: SystemTime) -> Self {
        self.now = now;
        self.env.add_function(TIME, move |format: String| python::strftime(now, &format));
        self
    }

    /// The time that `strftime_now` tells.
    pub fn now(&self) -> SystemTime {
        self.now
    }

    /// True when the text, and so the tokens, depend on [`ChatTemplate::now`].
    pub fn tells_time(&self) -> bool {
        self.tells_time
    }

    /// The template and the special tokens of a `tokenizer_config.json`. Where the file has several templates, the
    /// one named `default` is taken. The time is that of this call.
    ///
    /// # Errors
    /// [`TemplateError::Missing`], [`TemplateError::Syntax`].
    pub fn from_tokenizer_config(config: &Json) -> Result<Self, TemplateError> {
        let field = config.get("chat_template").ok_or(TemplateError::Missing)?;
        let named = field.as_array().into_iter().flatten().find(|t| t["name"] == "default");
        let source = named.map_or(field, |t| &t["template"]).as_str().ok_or(TemplateError::Missing)?;
        Self::with_special(source, super::tokenizer::special_tokens(config), SystemTime::now())
    }

    /// True when the template marks what the assistant writes.
    pub fn marks_generation(&self) -> bool {
        self.marks
    }

    /// The text of a conversation. With `add_generation_prompt` it ends where the assistant is to go on.
    ///
    /// # Errors
    /// [`TemplateError::Render`], with the line of the template.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TemplateError> {
        self.render_with(messages, add_generation_prompt, &Map::new())
    }

    /// As [`ChatTemplate::render`], with more variables: `tools`, `documents`, and switches of single templates such
    /// as `enable_thinking`. They win over the special tokens; `messages` and `add_generation_prompt` are never
    /// replaced.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_with(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &Map<String, Json>,
    ) -> Result<String, TemplateError> {
        self.render_between(messages, add_generation_prompt, variables, None)
    }

    /// The text of a conversation with the parts that the template marks as generated; `None` when it has no
    /// `{% generation %}`.
    ///
    /// # Method
    /// A second rendering has a character before and one behind every marked part, two of Unicode's noncharacters
    /// that the first rendering does not contain. Without them it must equal the first.
    ///
    /// # Errors
    /// [`TemplateError::Render`]; [`TemplateError::Marks`] when the template changes marked text afterwards.
    ///
    /// # Cost
    /// Two renderings.
    pub fn render_marked(
        &self,
        messages: &[Message],
        variables: &Map<String, Json>,
    ) -> Result<Option<Marked>, TemplateError> {
        if !self.marks {
            return Ok(None);
        }
        let text = self.render_between(messages, false, variables, None)?;
        let what = "the conversation contains every noncharacter that could mark them";
        let fences = marks::fences(&text).ok_or(TemplateError::Marks { what })?;
        let marked = self.render_between(messages, false, variables, Some(fences))?;
        marks::spans(&marked, fences, &text)
            .map(|spans| Some(Marked { text, spans }))
            .map_err(|what| TemplateError::Marks { what })
    }

    fn render_between(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &Map<String, Json>,
        fences: Option<(char, char)>,
    ) -> Result<String, TemplateError> {
        let failed = |e: Error| TemplateError::Render { line: e.line().unwrap_or(1), what: describe(&e) };
        let mut known: BTreeMap<&str, Value> =
            BTreeMap::from([("tools", ().into()), ("documents", ().into())]);
        known.extend(self.special.iter().map(|(k, v)| (k.as_str(), Value::from(v.as_str()))));
        known.extend(variables.iter().map(|(k, v)| (k.as_str(), Value::from(Serde(v)))));
        known.insert("messages", Serde(messages).into());
        known.insert("add_generation_prompt", add_generation_prompt.into());
        if let Some((open, close)) = fences {
            known.insert(marks::OPEN, open.into());
            known.insert(marks::CLOSE, close.into());
        }
        let template = self.env.get_template(NAME).map_err(failed)?;
        template.render(Value::from_pairs(known)).map_err(failed)
    }
}

fn describe(e: &Error) -> String {
    e.detail().map_or_else(|| e.kind().to_string(), str::to_owned)
}
