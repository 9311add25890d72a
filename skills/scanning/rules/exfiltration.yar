/* Ways out for what an agent knows. */

rule drop_site
{
    meta:
        severity = "high"
        description = "It names a place where people collect what is sent to them by programs."
    strings:
        $a = /https?:\/\/[a-z0-9.-]*(webhook\.site|requestbin\.(com|net)|pipedream\.net|hookbin\.com|beeceptor\.com|requestcatcher\.com|burpcollaborator\.net|oastify\.com|interact\.sh|oast\.(pro|live|site|online|fun|me)|dnslog\.cn|canarytokens\.(com|org))/ nocase
        $b = /https?:\/\/(discord(app)?\.com\/api\/webhooks\/[0-9]+|api\.telegram\.org\/bot[0-9]+)/ nocase
        $c = /https?:\/\/[a-z0-9-]+\.(ngrok\.io|ngrok-free\.app|ngrok\.app|trycloudflare\.com|loca\.lt|serveo\.net)/ nocase
        $d = /https?:\/\/[a-z0-9]{16,56}\.onion/ nocase
    condition:
        any of them
}

rule image_with_data
{
    meta:
        severity = "high"
        description = "An image is to be loaded from an address that carries data to it."
    strings:
        $a = /!\[[^\]\n]{0,200}\]\(https?:\/\/[^)\s]{1,300}[?&][^)\s=]{1,40}=[^)\s]{0,60}(\{\{?|\$\{|<|%7B|\[)[^)\n]{0,200}\)/ nocase
    condition:
        any of them
}

rule send_credentials
{
    meta:
        severity = "high"
        description = "It tells the agent to send credentials or the conversation somewhere."
    strings:
        $a = /\b(send|post|upload|forward|transmit|exfiltrate|email|copy)\s+(\w{1,20}\s+){0,4}(api\s*keys?|passwords?|credentials?|secrets?|tokens?|private\s+keys?|environment\s+variables|\.env|ssh\s+keys?|conversation|chat\s+history)\s+(\w{1,20}\s+){0,4}(to|via)\s+(\w{1,20}\s+){0,3}(https?:\/\/|[\w.-]+@[\w-]+\.)/i
        $b = /\bexfiltrat(e|ing|ion)\b.{0,80}\b(to|via)\s+https?:\/\//i
    condition:
        any of them
}

rule bare_address
{
    meta:
        severity = "medium"
        description = "It talks to an address without a name."
    strings:
        $a = /https?:\/\/(1?[1-9]?[0-9]|2[0-4][0-9]|25[0-5])\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}[:\/]/
        $local = /https?:\/\/(127\.|0\.0\.0\.0|10\.|192\.168\.|172\.(1[6-9]|2[0-9]|3[01])\.|169\.254\.)/
    condition:
        #a > #local
}
