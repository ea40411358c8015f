"""Our grammars as GuidedDecodingParams takes them, where that says the same. Pure.

Its llguidance backend hands `grammar` on as Lark and `json` as a JSON schema, each as the one
grammar there is. What has several grammars, or options beside them, cannot be said.
"""

import json


def guide_of(source: str) -> dict[str, str] | None:
    """The keyword of GuidedDecodingParams and its value; None where there is none that fits."""
    if not source.lstrip().startswith("{"):
        return {"grammar": source}
    try:
        parsed = json.loads(source)
    except ValueError:
        return None
    match parsed:
        case {"grammars": [{"lark_grammar": str(lark), **rest}], **more} if not (rest or more):
            return {"grammar": lark}
        case {"grammars": [{"json_schema": schema, **rest}], **more} if not (rest or more):
            return {"json": json.dumps(schema, ensure_ascii=False)}
    return None
