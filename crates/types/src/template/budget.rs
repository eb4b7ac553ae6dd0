//! How much text a template may make.
//!
//! What a template writes is bounded, and so are the rounds of its loops. A text that it makes and does
//! not write is neither: a few rounds that double one would fill the memory. So every function that makes
//! a text takes it from a budget, before it makes it.

use gotmpl::{Result, Template, TemplateError, ToValue, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of all texts that one template makes.
const BYTES_MAX: usize = 64 << 20;
/// The library pads what one verb of a format writes to no more.
const PAD_MAX: usize = 1 << 16;
/// A character at most becomes so many of an escaped text, for each of its bytes.
const ESCAPE_MAX: usize = 6;

/// Functions of the library that make texts.
const MAKERS: [&str; 7] = ["print", "println", "printf", "html", "js", "urlquery", "slice"];

/// What is left of it. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(BYTES_MAX)))
    }

    /// Takes so much, or says that the template makes too much.
    pub(super) fn take(&self, bytes: usize) -> Result<()> {
        let less = |left: usize| left.checked_sub(bytes);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.map(drop).map_err(|_left| {
            TemplateError::Exec(format!("it makes texts of more than {BYTES_MAX} bytes"))
        })
    }

    /// Has a function's texts taken from it: `most` is at least what it makes of its arguments.
    fn takes(
        &self,
        most: impl Fn(&[Value]) -> usize + Send + Sync + 'static,
        function: impl Fn(&[Value]) -> Result<Value> + Send + Sync + 'static,
    ) -> impl Fn(&[Value]) -> Result<Value> + Send + Sync + 'static {
        let budget = self.clone();
        move |args| {
            let most = most(args);
            budget.take(most)?;
            let made = function(args)?;
            // What was not needed is given back.
            budget.0.fetch_add(most.saturating_sub(size(&made)), Ordering::Relaxed);
            Ok(made)
        }
    }

    /// A template whose functions take from this.
    pub(super) fn bound(&self, template: Template) -> Template {
        let bound = MAKERS.into_iter().fold(template, |template, name| {
            template
                .func(name, self.takes(move |args| most(name, args), move |args| own(name, args)))
        });
        bound.func("join", self.takes(most_of_join, |args| Ok(join(args))))
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        // Nothing that a template knows is long but texts, and maps of them, which it cannot make.
        Value::Map(all) => all.iter().map(|(name, value)| 16 + name.len() + size(value)).sum(),
        Value::List(all) => all.iter().map(|value| 16 + size(value)).sum(),
        _ => 32,
    }
}

fn sizes(args: &[Value]) -> usize {
    args.iter().map(|arg| 1 + size(arg)).sum()
}

fn most(name: &str, args: &[Value]) -> usize {
    match (name, args) {
        // Each verb may take any argument, also one that another one took.
        ("printf", [Value::String(format), args @ ..]) => {
            let verbs = format.matches('%').count();
            let longest = args.iter().map(size).max().unwrap_or(0);
            let one = PAD_MAX.saturating_add(longest.saturating_mul(ESCAPE_MAX));
            format.len().saturating_add(verbs.saturating_mul(one))
        }
        _ => sizes(args).saturating_mul(ESCAPE_MAX),
    }
}

fn most_of_join(args: &[Value]) -> usize {
    let signs = args.first().map_or(0, size).saturating_mul(args.len());
    sizes(args).saturating_add(signs)
}

/// The texts, with the first of them between.
fn join(args: &[Value]) -> Value {
    let words: Vec<String> = args.iter().map(ToString::to_string).collect();
    let (sign, rest) = words.split_first().map_or(("", &[][..]), |(sign, rest)| (sign, rest));
    rest.join(sign).to_value()
}

/// The library's own function of this name, by way of a template of that alone: it shows them nowhere else.
fn own(name: &str, args: &[Value]) -> Result<Value> {
    let places = (0..args.len()).map(|place| format!(" (index . {place})"));
    let call = format!("{{{{{name}{}}}}}", places.collect::<String>());
    let template = Template::new(name).parse(&call)?;
    let mut made = String::new();
    template.execute_fmt(&mut made, &Value::List(args.into()))?;
    Ok(made.to_value())
}
