//! Makes one core module of an interpreter, which is a component, and of the driver. binaryen does the merging in between.
//!
//! ```text
//! flatten layout COMPONENT           the pages of its memory and the entries of its table: where the driver's may begin
//! flatten apart COMPONENT DRIVER OUT the modules of the component, each of which imports the others by name, and what traps
//! flatten keep IN OUT                the module with the exports of the ABI alone, and constants in place of sums
//! flatten bound IN OUT               the module whose recursion ends before the stack of an engine does
//! flatten seal IN OUT                the engine: with a section that says where an author's files go
//! ```

mod apart;
mod bound;
mod component;
mod module;

use std::error::Error;
use std::path::Path;

/// The result of a step.
type Step<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Step {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["layout", component] => {
            let layout = component::Component::parse(&std::fs::read(component)?)?.layout()?;
            println!("{} {}", layout.pages, layout.entries);
        }
        ["apart", component, driver, out] => {
            let (component, driver) = (std::fs::read(component)?, std::fs::read(driver)?);
            println!("{}", apart::apart(&component, &driver, Path::new(out))?);
        }
        ["keep", from, to] => std::fs::write(to, module::keep(&std::fs::read(from)?)?)?,
        ["bound", from, to] => std::fs::write(to, bound::bound(&std::fs::read(from)?)?)?,
        ["seal", from, to] => std::fs::write(to, module::seal(&std::fs::read(from)?)?)?,
        _ => return Err("usage: flatten layout|apart|keep|bound|seal FILE...".into()),
    }
    Ok(())
}
