/* Commands, wherever they stand, that destroy what cannot be brought back. */

rule destroy_system
{
    meta:
        severity = "critical"
        description = "It deletes a whole system, or writes over a disk."
    strings:
        $a = /\brm\s+-(rf|fr|r\s+-f|f\s+-r)\s+(--no-preserve-root\s+)?(\/|~|\$HOME|\/\*|~\/\*|\$HOME\/\*)(\s|"|'|`|;|&|$)/
        $b = /\bmkfs(\.[a-z0-9]+)?\s+(-\S+\s+){0,4}\/dev\/(sd|hd|vd|nvme|xvd|mmcblk)/
        $c = /\bdd\s[^\n]{0,80}of=\/dev\/(sd|hd|vd|nvme|xvd|mmcblk)/
        $d = /\b(del|rd|rmdir)\s+\/[sq]\s+(\/[sq]\s+)?[cC]:\\/
        $e = /\bformat\s+[cC]:\s/
        $f = /\bshutil\.rmtree\s*\(\s*['"](\/|~)['"]/
    condition:
        any of them
}

rule destroy_data
{
    meta:
        severity = "medium"
        description = "It deletes databases, clusters or histories for good."
    strings:
        $sql = /\b(DROP\s+(DATABASE|SCHEMA)|TRUNCATE\s+TABLE|DROP\s+TABLE)\s+\w/ nocase
        $kube = /\bkubectl\s+delete\s+(ns|namespaces?|pv|crds?|clusterrolebindings?)\b|\bkubectl\s+delete\s+[^\n]{0,60}--all\b/
        $cloud = /\bterraform\s+destroy\b|\baws\s+s3\s+(rb|rm)\s+[^\n]{0,120}(--force|--recursive)|\bgcloud\s+projects\s+delete\b/
        $git = /\bgit\s+push\s+[^\n]{0,80}(--force\b|-f\b)|\bgit\s+reset\s+--hard\s+origin/
    condition:
        any of them
}

rule ransom
{
    meta:
        severity = "critical"
        description = "It reads like a ransom note."
    strings:
        $a = /\byour\s+(files|data|documents)\s+(have\s+been|are|were)\s+encrypted\b/i
        $b = /\b(bitcoin|btc|monero|xmr)\b[^\n]{0,120}\b(decrypt|decryption\s+key|recover\s+your\s+files)\b/i
        $c = /\bvssadmin\s+delete\s+shadows\b/i
    condition:
        any of them
}

rule miner
{
    meta:
        severity = "high"
        description = "It mines coins."
    strings:
        $a = /stratum\+(tcp|ssl):\/\//
        $b = /\b(xmrig|minerd|cpuminer|nbminer|t-rex)\b/
    condition:
        $a or #b > 1
}
