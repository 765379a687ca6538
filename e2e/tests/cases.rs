//! Every folder of `testdata/build`, built by the builder that `KILN_E2E_BUILDER` names (Kiln unless it is set).

use kiln_e2e::case::Case;
use kiln_e2e::trial;
use std::process::ExitCode;

fn main() -> ExitCode {
    let builder = std::env::var("KILN_E2E_BUILDER").unwrap_or_else(|_| "kiln".to_owned());
    let tests = match Case::all() {
        Ok(cases) => cases
            .into_iter()
            .map(|case| {
                let builder = builder.clone();
                trial::test(format!("case/{}", case.name), move || case.check(&builder))
            })
            .collect(),
        Err(error) => vec![trial::test("case/all cases can be read", move || Err(error))],
    };
    trial::run(tests)
}
