//! Whether a template wants the content of a message as text or as a list of parts, found as vLLM 0.32 finds it:
//! it wants parts where it loops over the content of a message.
//!
//! vLLM's rules, which this follows also where they could be better: `messages` may go through filters, tests,
//! slices and assignments; the content of a message is looped over directly, through a macro's parameter, or
//! outside of macros by the name `content`. Scopes are not told apart.

use minijinja::machinery::ast::{Call, CallArg, Expr, ForLoop, Macro, Stmt};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, machinery};
use std::collections::HashSet;

/// How a template takes what a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentFormat {
    /// Text; several parts are joined by line breaks.
    String,
    /// `{"type": "text", "text": ...}`, a list of those.
    Openai,
}

/// What the template with this source wants.
pub(super) fn detect(source: &str, syntax: SyntaxConfig) -> Result<ContentFormat, Error> {
    let root = machinery::parse(source, "chat", syntax)?;
    let mut found = Found::default();
    found.statement(&root, None);
    // A loop over messages, or one over content, that takes items apart ends vLLM's search with an error, and
    // then it takes text.
    Ok(match found.loops_over_content() {
        Some(true) => ContentFormat::Openai,
        Some(false) | None => ContentFormat::String,
    })
}

/// What of a template matters here.
#[derive(Default)]
struct Found<'a, 't> {
    /// Loops, with the position of the macro that they are in.
    loops: Vec<(&'t ForLoop<'a>, Option<usize>)>,
    assignments: Vec<(&'t Expr<'a>, &'t Expr<'a>)>,
    macros: Vec<&'t Macro<'a>>,
    calls: Vec<&'t Call<'a>>,
}

impl<'a, 't> Found<'a, 't> {
    /// `None` where vLLM's search would fail.
    fn loops_over_content(&self) -> Option<bool> {
        let talks = self.names_of_messages()?;
        let mut messages = HashSet::new();
        for (it, _) in &self.loops {
            if talks.iter().any(|talk| is_access(&it.iter, talk, None)) {
                messages.insert(name_of(&it.target)?);
            }
        }
        let is_content =
            |it: &Expr<'_>| messages.iter().any(|name| is_access(it, name, Some("content")));
        for (it, inside) in &self.loops {
            let by_name = match (&it.iter, inside) {
                (Expr::Var(var), Some(inside)) => {
                    self.is_given_content(*inside, var.id, &is_content)
                }
                (Expr::Var(var), None) => var.id == "content",
                _ => false,
            };
            if is_content(&it.iter) || by_name {
                return name_of(&it.target).map(|_| true);
            }
        }
        Some(false)
    }

    /// `messages`, and what it or a part of it was assigned to.
    fn names_of_messages(&self) -> Option<Vec<&'a str>> {
        let mut names = vec!["messages"];
        let mut at = 0;
        while let Some(&name) = names.get(at) {
            for (target, value) in &self.assignments {
                if is_access(value, name, None) {
                    let target = name_of(target)?;
                    if !names.contains(&target) {
                        names.push(target);
                    }
                }
            }
            at += 1;
        }
        Some(names)
    }

    /// Whether a macro's parameter is the content of a message in some call.
    fn is_given_content(
        &self,
        inside: usize,
        parameter: &str,
        is_content: &impl Fn(&Expr<'_>) -> bool,
    ) -> bool {
        let called = self.macros[inside];
        let Some(position) = called.args.iter().position(|it| name_of(it) == Some(parameter))
        else {
            return false;
        };
        let calls = self.calls.iter().filter(|it| name_of(&it.expr) == Some(called.name));
        calls.into_iter().any(|call| {
            let positional = call.args.iter().filter_map(|it| match it {
                CallArg::Pos(value) => Some(value),
                _ => None,
            });
            positional.into_iter().nth(position).is_some_and(is_content)
                || call.args.iter().any(|it| match it {
                    CallArg::Kwarg(name, value) => *name == parameter && is_content(value),
                    _ => false,
                })
        })
    }

    fn statements(&mut self, all: &'t [Stmt<'a>], inside: Option<usize>) {
        for it in all {
            self.statement(it, inside);
        }
    }

    fn statement(&mut self, it: &'t Stmt<'a>, inside: Option<usize>) {
        match it {
            Stmt::Template(it) => self.statements(&it.children, inside),
            Stmt::EmitExpr(it) => self.expression(&it.expr),
            Stmt::ForLoop(it) => {
                self.loops.push((it, inside));
                self.expression(&it.iter);
                if let Some(filter) = &it.filter_expr {
                    self.expression(filter);
                }
                self.statements(&it.body, inside);
                self.statements(&it.else_body, inside);
            }
            Stmt::IfCond(it) => {
                self.expression(&it.expr);
                self.statements(&it.true_body, inside);
                self.statements(&it.false_body, inside);
            }
            Stmt::WithBlock(it) => {
                for (_, value) in &it.assignments {
                    self.expression(value);
                }
                self.statements(&it.body, inside);
            }
            Stmt::Set(it) => {
                self.assignments.push((&it.target, &it.expr));
                self.expression(&it.expr);
            }
            Stmt::SetBlock(it) => self.statements(&it.body, inside),
            Stmt::AutoEscape(it) => self.statements(&it.body, inside),
            Stmt::FilterBlock(it) => self.statements(&it.body, inside),
            Stmt::Macro(it) => {
                self.macros.push(it);
                self.statements(&it.body, Some(self.macros.len() - 1));
            }
            Stmt::CallBlock(it) => {
                self.call(&it.call);
                self.statements(&it.macro_decl.body, inside);
            }
            Stmt::Do(it) => self.call(&it.call),
            _ => {}
        }
    }

    fn call(&mut self, it: &'t Call<'a>) {
        self.calls.push(it);
        self.expression(&it.expr);
        self.arguments(&it.args);
    }

    fn arguments(&mut self, all: &'t [CallArg<'a>]) {
        for it in all {
            match it {
                CallArg::Pos(value)
                | CallArg::Kwarg(_, value)
                | CallArg::PosSplat(value)
                | CallArg::KwargSplat(value) => self.expression(value),
            }
        }
    }

    /// Looks for calls.
    fn expression(&mut self, it: &'t Expr<'a>) {
        match it {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(it) => self.expression(&it.expr),
            Expr::UnaryOp(it) => self.expression(&it.expr),
            Expr::BinOp(it) => {
                self.expression(&it.left);
                self.expression(&it.right);
            }
            Expr::Compare(it) => {
                self.expression(&it.expr);
                it.ops.iter().for_each(|it| self.expression(&it.expr));
            }
            Expr::IfExpr(it) => {
                self.expression(&it.test_expr);
                self.expression(&it.true_expr);
                if let Some(otherwise) = &it.false_expr {
                    self.expression(otherwise);
                }
            }
            Expr::Filter(it) => {
                if let Some(value) = &it.expr {
                    self.expression(value);
                }
                self.arguments(&it.args);
            }
            Expr::Test(it) => {
                self.expression(&it.expr);
                self.arguments(&it.args);
            }
            Expr::GetAttr(it) => self.expression(&it.expr),
            Expr::GetItem(it) => {
                self.expression(&it.expr);
                self.expression(&it.subscript_expr);
            }
            Expr::Call(it) => self.call(it),
            Expr::List(it) => it.items.iter().for_each(|it| self.expression(it)),
            Expr::Tuple(it) => it.items.iter().for_each(|it| self.expression(it)),
            Expr::Map(it) => {
                it.keys.iter().chain(&it.values).for_each(|it| self.expression(it));
            }
        }
    }
}

fn name_of<'a>(it: &Expr<'a>) -> Option<&'a str> {
    match it {
        Expr::Var(var) => Some(var.id),
        _ => None,
    }
}

/// Whether an expression is the variable `name`, or its item `key`, or some of that.
fn is_access(it: &Expr<'_>, name: &str, key: Option<&str>) -> bool {
    match (it, key) {
        (Expr::Filter(it), _) => it.expr.as_ref().is_some_and(|it| is_access(it, name, key)),
        (Expr::Test(it), _) => is_access(&it.expr, name, key),
        (Expr::Slice(it), _) => is_access(&it.expr, name, key),
        (Expr::Var(var), None) => var.id == name,
        (Expr::GetAttr(it), Some(key)) => it.name == key && name_of(&it.expr) == Some(name),
        (Expr::GetItem(it), Some(key)) => {
            name_of(&it.expr) == Some(name)
                && matches!(&it.subscript_expr, Expr::Const(it) if it.value.as_str() == Some(key))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What vLLM's own detection said of the same templates: see `make goldens`.
    #[test]
    fn a_loop_over_content_wants_parts() {
        let (text, parts) = (ContentFormat::String, ContentFormat::Openai);
        for (source, expected) in [
            ("{% for m in messages %}{{ m.content }}{% endfor %}", text),
            ("{% for m in messages %}{% for c in m.content %}{% endfor %}{% endfor %}", parts),
            (
                "{% for m in messages %}{% for c in m['content'] | list %}{% endfor %}{% endfor %}",
                parts,
            ),
            ("{% for m in messages[1:] %}{% for c in m.content %}{% endfor %}{% endfor %}", parts),
            (
                "{% set rest = messages[1:] %}{% set more = rest %}{% for m in more %}\
                 {% for c in m.content %}{% endfor %}{% endfor %}",
                parts,
            ),
            ("{% for m in others %}{% for c in m.content %}{% endfor %}{% endfor %}", text),
            ("{% set content = 1 %}{% for c in content %}{% endfor %}", parts),
            ("{% macro f(content) %}{% for c in content %}{% endfor %}{% endmacro %}", text),
            (
                "{% macro f(x) %}{% for c in x %}{% endfor %}{% endmacro %}\
                 {% for m in messages %}{{ f(m.content) }}{% endfor %}",
                parts,
            ),
            (
                "{% macro f(y, x) %}{% for c in x %}{% endfor %}{% endmacro %}\
                 {% for m in messages %}{{ f(1, x=m.content) }}{% endfor %}",
                parts,
            ),
            ("{% for m in messages %}{% for a, b in m.content %}{% endfor %}{% endfor %}", text),
        ] {
            assert_eq!(detect(source, SyntaxConfig::default()).unwrap(), expected, "{source}");
        }
    }
}
