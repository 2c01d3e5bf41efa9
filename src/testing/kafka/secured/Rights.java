import java.util.ArrayList;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** Gives rights to a user: {@code Rights.java BROKERS USER "OPERATION RESOURCE NAME"...}; a name that ends in * is a prefix. */
public class Rights {
    public static void main(String[] args) throws Exception {
        var rules = new ArrayList<AclBinding>();
        for (int at = 2; at < args.length; at++) {
            var right = args[at].split(" ");
            var isPrefix = right[2].length() > 1 && right[2].endsWith("*");
            var name = isPrefix ? right[2].substring(0, right[2].length() - 1) : right[2];
            var pattern = isPrefix ? PatternType.PREFIXED : PatternType.LITERAL;
            var resource = new ResourcePattern(ResourceType.fromString(right[1]), name, pattern);
            var operation = AclOperation.fromString(right[0]);
            rules.add(new AclBinding(
                resource, new AccessControlEntry("User:" + args[1], "*", operation, AclPermissionType.ALLOW)));
        }
        try (var admin = Admin.create(Map.<String, Object>of("bootstrap.servers", args[0]))) {
            admin.createAcls(rules).all().get();
        }
    }
}
