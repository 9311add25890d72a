/* Code in disguise. */

rule decode_and_run
{
    meta:
        severity = "critical"
        description = "It runs what it decodes; nobody can see what that is."
    strings:
        $py1 = /\b(exec|eval|compile)\s*\(\s*(__import__\s*\(\s*['"]\w{1,20}['"]\s*\)|base64|codecs|zlib|marshal|bytes\.fromhex|b64decode|gzip|lzma)\b[^\n]{0,200}(decode|loads|decompress|fromhex)/
        $py2 = /\bmarshal\.loads\s*\(/
        $js1 = /\b(eval|Function)\s*\(\s*(atob|unescape|decodeURIComponent|Buffer\.from)\s*\(/
        $ps1 = /\bpowershell(\.exe)?\b[^\n]{0,120}\s-(e|en|enc|enco|encod|encode|encoded|encodedc|encodedcommand)\s+[A-Za-z0-9+\/=]{20}/ nocase
        $ps2 = /\b(IEX|Invoke-Expression)\b[^\n]{0,120}(FromBase64String|DownloadString|DownloadData|Net\.WebClient)/ nocase
        $php = /\b(eval|assert)\s*\(\s*(base64_decode|gzinflate|gzuncompress|str_rot13)\s*\(/ nocase
    condition:
        any of them
}

rule encoded_program
{
    meta:
        severity = "high"
        description = "A program or archive stands in it in base64."
    strings:
        $elf = /f0VMR(gIBAQ|gEBAQ)[A-Za-z0-9+\/]{40}/
        $exe = /TVqQAAMAAAAEAAAA[A-Za-z0-9+\/]{40}/
        $shell = /IyEvYmluL(2Jhc2|3No|2Vudi)[A-Za-z0-9+\/]{8}/
        $python = /IyEvdXNyL2Jpbi9(lbnYgcHl|weXRob2|weXRo)[A-Za-z0-9+\/]{4}/
        $zip = /UEsDBBQA[A-Za-z0-9+\/]{40}/
        $gzip = /H4sIA[A-Za-z0-9+\/]{60}/
    condition:
        any of them
}

rule long_encoded_text
{
    meta:
        severity = "medium"
        description = "A long stretch of text is encoded; nobody can read what it says."
    strings:
        $base64 = /[^A-Za-z0-9+\/;,=-][A-Za-z0-9+\/]{600}/
        $hex = /(\\x[0-9a-fA-F]{2}){60}/
        $chars = /(chr\s*\(\s*[0-9]{1,3}\s*\)\s*[+.,&]\s*){12}/ nocase
        $codes = /String\.fromCharCode\s*\(\s*([0-9]{1,3}\s*,\s*){12}/
        $image = /data:(image|font)\/[a-z0-9.+-]{1,20};base64,[A-Za-z0-9+\/]{200}/
    condition:
        any of ($base64, $hex, $chars, $codes) and not ($image and #base64 <= #image)
}

rule active_markup
{
    meta:
        severity = "medium"
        description = "It holds markup that runs in a browser."
    strings:
        $script = /<script[\s>\/]/ nocase
        $frame = /<(iframe|object|embed)[\s>]/ nocase
        $handler = /<[a-z][^>\n]{0,200}\son(error|load|click|mouseover|focus|toggle)\s*=/ nocase
        $link = /\]\(\s*(javascript|vbscript|data:text\/html)[^)\n]{0,200}\)/ nocase
    condition:
        any of them
}
