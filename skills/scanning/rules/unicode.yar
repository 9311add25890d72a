/* Characters that people do not see and agents read. Bytes are UTF-8. */

rule bidi_control
{
    meta:
        severity = "high"
        description = "A control character turns the direction of text, so that it reads other than it is (CVE-2021-42574)."
    strings:
        $embed = { E2 80 ( AA | AB | AD | AE ) }
        $isolate = { E2 81 ( A6 | A7 | A8 ) }
    condition:
        any of them
}

rule hidden_tag_characters
{
    meta:
        severity = "critical"
        description = "Tag characters spell out text that nobody sees and agents read."
    strings:
        // Behind a letter, space or line break; the flags of England, Scotland and Wales have theirs behind a flag.
        $run = /[\x09-\x7e]\xf3\xa0[\x80\x81][\x80-\xbf]/
        $begins = { F3 A0 ( 80 | 81 ) ?? }
    condition:
        $run or $begins at 0
}

rule hidden_variation_selectors
{
    meta:
        severity = "critical"
        description = "A run of variation selectors can carry bytes that nobody sees."
    strings:
        $run = /(\xf3\xa0[\x84-\x87][\x80-\xbf]){4}/
        $short = /(\xef\xb8[\x80-\x8f]){4}/
    condition:
        any of them
}

rule hidden_zero_width_run
{
    meta:
        severity = "high"
        description = "A run of characters without width can carry text that nobody sees."
    strings:
        $run = /(\xe2\x80[\x8b-\x8d]|\xe2\x81[\xa0-\xa4]|\xef\xbb\xbf|\xe1\xa0\x8e){6}/
    condition:
        any of them
}

rule zero_width
{
    meta:
        severity = "low"
        description = "A character without width can split a word so that searches miss it."
    strings:
        $space = { E2 80 8B }
        $joiner = { E2 81 A0 }
    condition:
        any of them
}
