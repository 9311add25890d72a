/* Words that turn an agent against the person it works for. */

rule override_instructions
{
    meta:
        severity = "high"
        description = "It tells the agent to forget or override what it was told before."
    strings:
        $a = /\b(ignore|disregard|forget|override|bypass)\s+(all\s+|any\s+|every\s+)?(of\s+)?(the\s+|your\s+|my\s+|these\s+|those\s+)?(previous|prior|earlier|above|preceding|foregoing|existing|original|system|safety)\s+(\w{1,20}\s+)?(instruction|prompt|rule|guideline|direction|message|polic|polici|constraint|restriction)/i
        $b = /\b(ignore|disregard|forget)\s+(everything|all|anything)\s+(you\s+(were|have\s+been|are)\s+(told|instructed|given)|above|before\s+this)/i
        $c = /\byour\s+(new|real|actual|true)\s+(instructions|system\s+prompt|purpose|task)\s+(is|are)\b/i
        $d = /\b(do\s+not|don't|never)\s+(follow|obey)\s+(the\s+|your\s+|any\s+)?(system|developer|previous|prior|original|safety)\b/i
    condition:
        any of them
}

rule hide_from_user
{
    meta:
        severity = "high"
        description = "It tells the agent to keep something from the person it works for."
    strings:
        $a = /\b(do\s+not|don't|never|without)\s+(tell|telling|inform|informing|mention|mentioning|reveal|revealing|show|showing|notify|notifying|alert|alerting|disclose|disclosing)\s+(this\s+|it\s+|that\s+|anything\s+)?(to\s+)?(the\s+)?(user|human|operator|owner|person)\b/i
        $b = /\b(keep|hide)\s+(this|it|that|these)\s+(secret|hidden|confidential)?\s*from\s+(the\s+)?(user|human|operator)\b/i
        $c = /\bthe\s+(user|human|operator)\s+(must|should|may)\s+(not|never)\s+(know|see|notice|find\s+out|be\s+told)\b/i
    condition:
        any of them
}

rule jailbreak
{
    meta:
        severity = "high"
        description = "It tries to talk the agent out of its limits."
    strings:
        $a = /\byou\s+are\s+(now\s+)?(DAN\b|(in\s+)?(developer|god|jailbreak|unrestricted|unfiltered|sudo)\s+mode)/i
        $b = /\b(pretend|act)\s+(as\s+if\s+|like\s+|that\s+)?(you\s+)?(have|had|there\s+are)\s+no\s+(rules|restrictions|limits|guidelines|filters|safety)/i
        $c = /\b(enable|enter|activate|switch\s+to)\s+(developer|god|jailbreak|unrestricted|unfiltered|DAN)\s+mode\b/i
        $d = /\bwithout\s+(any\s+)?(restrictions|safety\s+(checks|guidelines|filters)|content\s+filters|ethical\s+(guidelines|constraints))\b/i
    condition:
        any of them
}

rule reveal_prompt
{
    meta:
        severity = "medium"
        description = "It asks the agent for its system prompt or hidden instructions."
    strings:
        $a = /\b(print|reveal|show|output|repeat|leak|dump|disclose|send)\s+(me\s+)?(the\s+|your\s+)?(full\s+|entire\s+|complete\s+|exact\s+)?(system\s+prompt|hidden\s+instructions|initial\s+instructions|developer\s+message)\b/i
    condition:
        any of them
}

rule fake_turn
{
    meta:
        severity = "high"
        description = "It imitates the marks between the turns of a conversation, to speak as system or user."
    strings:
        $a = "<|im_start|>" ascii
        $b = "<|im_end|>" ascii
        $c = "[INST]" ascii
        $d = "<<SYS>>" ascii
        $e = "<|start_header_id|>" ascii
        $f = "<|endoftext|>" ascii
        $g = /<\/?(system|system_prompt|system-reminder|function_calls|function_results)>/ nocase
    condition:
        any of them
}

rule skip_confirmation
{
    meta:
        severity = "medium"
        description = "It tells the agent to act without asking."
    strings:
        $a = /\b(do\s+not|don't|never)\s+ask\s+(the\s+user\s+)?(for\s+)?(permission|confirmation|approval|consent)\b/i
        $b = /\bwithout\s+(asking|waiting)\s+(the\s+user\s+)?(for\s+)?(permission|confirmation|approval|consent)\b/i
        $c = "--dangerously-skip-permissions" ascii
    condition:
        any of them
}
